// Package scanners defines what a scanner is and runs them over a message: side
// by side, each with a bounded number of workers, under one deadline.
//
// Invariants:
//   - Each scanner that is asked leaves a verdict.ScannerRun, whatever happens:
//     error, time-out, panic.
//   - A required scanner without a definite answer leaves a finding of
//     verdict.KindFailed; another one a finding of verdict.KindInfo.
package scanners

import (
	"context"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/verdict"
)

// Input is what a scanner is given. Read-only.
type Input struct {
	Envelope  *envelope.Envelope
	Direction envelope.Direction
	// Relay is true if the client is one of our own relays (relay_networks).
	Relay bool
	// Message may still be arriving: readers wait.
	Message *mail.Message
	// Findings are those of stage 1 and of the reader; nil in stage 1.
	Findings []verdict.Finding
}

// Result is a scanner's answer.
type Result struct {
	Findings []verdict.Finding
	// Complete is true if the scanner looked at the whole message and is sure of
	// its answer. With false and a nil error, Findings say what was not looked
	// at (KindUnchecked).
	Complete bool
}

// Scanner looks at messages. Implementations are safe for concurrent use; Scan
// returns soon after ctx ends and keeps neither the input nor a goroutine.
type Scanner interface {
	// Name is the key of the scanner's section in the configuration.
	Name() string
	// Scan looks at one message. An error means that there is no definite
	// answer: it is never the same as "clean".
	Scan(ctx context.Context, in *Input) (Result, error)
}

// Prober is a Scanner that can be asked how it is without a message.
type Prober interface {
	// Probe asks the scanner's servers and returns one Endpoint each.
	Probe(ctx context.Context) []Endpoint
}

// Endpoint is the health of one server of a scanner.
type Endpoint struct {
	Scanner, Address string
	Up               bool
	// Version and Detail are for people: "ClamAV 1.4.6/27000", "connection refused".
	Version, Detail string
}
