package policy

import "sluice/internal/verdict"

// Disposition is what is done to a message as a whole: one reply and the changes.
// The milter carries it out; it is not changed once it has been handed over.
type Disposition struct {
	// Reply is what the MTA is told.
	Reply Reply
	// Discard: the MTA tells the client 250 and throws the message away. Only
	// where policy said so for everyone.
	Discard bool
	// RemoveRecipients are taken off the envelope, in the MTA's spelling.
	RemoveRecipients []string
	// AddRecipients are put on the envelope, bare addresses.
	AddRecipients []string
	// Fields are the changes to the header, to be made in this order.
	Fields []FieldChange
	// Decisions are what was decided for each recipient, in the envelope's order.
	Decisions []verdict.Decision
	// Notes are what the journal and the log say about how decisions were combined:
	// "compromise", "split reject", "observe".
	Notes []string
}

// Reply is an SMTP reply to the end of the message. The zero value means accept
// (250 by the MTA's own words).
type Reply struct {
	// Code is 0 (accept), or 4xx or 5xx.
	Code int
	// Enhanced is the enhanced status code (RFC 3463), "5.7.1".
	Enhanced string
	// Text is one line of printable ASCII that ends in "(id …)".
	Text string
}

// Accepted reports whether the message goes on (or is discarded with 250).
func (r Reply) Accepted() bool { return r.Code == 0 }

// FieldChange is one change to the header section.
type FieldChange struct {
	Op FieldOp
	// Name is the field's name. Value is the new value, folded with "\n\t" or
	// "\n ", 7-bit, without the leading blank.
	Name, Value string
	// Index is, for DeleteField and ReplaceField, which of the fields of that name
	// is meant, from 1, as the message stood on arrival less the deletions before; for InsertField the
	// position from the top of the message, 0 being above the MTA's own Received.
	Index int
}

// FieldOp says what is done to a header field.
type FieldOp uint8

// The operations.
const (
	InsertField FieldOp = iota
	ReplaceField
	DeleteField
)
