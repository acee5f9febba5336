package gateway

import (
	"context"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
	"sluice/policy"
)

// Record is what is kept about one message: the journal's entry. It is not
// changed once it has been handed over.
type Record struct {
	// ID is the journal's key, a UUIDv7; QueueID the MTA's name, "" if none.
	ID, QueueID string
	// Time is when the end of the message was read.
	Time      time.Time
	Envelope  *envelope.Envelope
	Direction envelope.Direction
	// Relay is true if the client is in relay_networks.
	Relay bool
	// Author is the address of the From field, null if there isn't exactly one.
	Author  envelope.Address
	Verdict *verdict.Verdict
	// Disposition is what the MTA is going to be told.
	Disposition policy.Disposition
	// Carried is what is really done for each recipient, in the order of
	// Disposition.Decisions; nil if there is no decision.
	Carried []verdict.Action
	// PolicyGeneration is that of the policies that decided.
	PolicyGeneration int64
	// Class and Score are the worst of the recipients'.
	Class verdict.Class
	Score verdict.Score
	// Trouble says why there is no decision, "" if there is one.
	Trouble string
}

// Journal keeps records. Safe for concurrent use.
type Journal interface {
	// Record keeps r before the MTA is answered. After an error the MTA is told
	// 451, so what the error left behind must not count as a disposition.
	Record(ctx context.Context, r *Record) error
	// Answered notes whether the reply of the record with that ID was written: err
	// says why not.
	Answered(id string, err error)
}

// LogOnly is the Journal of a build without a store: the log line that the
// gateway writes for each message is all that is kept.
type LogOnly struct{}

// Record accepts every record.
func (LogOnly) Record(context.Context, *Record) error { return nil }

// Answered does nothing.
func (LogOnly) Answered(string, error) {}
