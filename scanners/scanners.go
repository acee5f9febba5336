// Package scanners defines what a scanner is and runs them over a message: side
// by side, each with a bounded number of workers, under one deadline.
//
// Invariants:
//   - Each scanner that is asked leaves a verdict.ScannerRun, whatever happens:
//     error, time-out, panic.
//   - A required scanner without a definite answer leaves a finding of
//     verdict.KindFailed; another one a finding of verdict.KindInfo. A panic, and
//     an overrun budget of a scanner that works inside our own process, are
//     verdict.KindUnchecked: the message would do it again, so that to defer it
//     helps nobody.
//   - A scanner holds a worker only while it works: a message that arrives slowly
//     takes none from others, save from the half that may start early.
//   - Findings are bounded in number and cleaned at this border.
package scanners

import (
	"context"
	"errors"
	"time"

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
	// at (KindUnchecked); if none does, the scanner is taken to have failed.
	Complete bool
}

// Scanner looks at messages. Implementations are safe for concurrent use; Scan
// returns soon after ctx ends and keeps neither the input nor a goroutine.
type Scanner interface {
	// Name is the key of the scanner's section in the configuration.
	Name() string
	// Scan looks at one message, which is complete. An error means that there is
	// no definite answer: it is never the same as "clean".
	Scan(ctx context.Context, in *Input) (Result, error)
}

// Early is a Scanner of stage 1 that gains by starting while the message still
// arrives. It is asked only if a worker is free at once, and at most half of the
// workers are lent out so.
type Early interface {
	Scanner
	// ScanEarly is Scan for a message that may still be arriving. It returns
	// ErrLater, as soon as it knows, to have Scan called once the message is
	// complete: because waiting costs nothing, or because the message has stopped
	// arriving and the worker is better given to another.
	ScanEarly(ctx context.Context, in *Input) (Result, error)
}

// ErrLater is what Early.ScanEarly returns to be asked again by Scan.
var ErrLater = errors.New("scan it when it is complete")

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
	// SignaturesDated is when the server's signatures were made, zero if it has none or
	// they have no date.
	SignaturesDated time.Time
}

// Reason says why a scanner gave no definite answer, as in metrics. The set is
// bounded.
type Reason string

// The reasons.
const (
	ReasonTimeout     Reason = "timeout"     // its time, or the message's, was over
	ReasonUnavailable Reason = "unavailable" // its server is away or said that it can't
	ReasonProtocol    Reason = "protocol"    // the answer could not be understood
	ReasonPanic       Reason = "panic"       // it crashed, inside our process
	ReasonCanceled    Reason = "canceled"    // the message was given up
	ReasonLimit       Reason = "limit"       // no worker became free in time
	ReasonInternal    Reason = "internal"    // any other error of its own
)

var reasons = []Reason{ReasonTimeout, ReasonUnavailable, ReasonProtocol, ReasonPanic, ReasonCanceled, ReasonLimit, ReasonInternal}

// Error is a scanner's error with its reason. A scanner may wrap it.
type Error struct {
	Reason Reason
	Err    error
}

// Error returns the text of the wrapped error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.Err }
