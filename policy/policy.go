// Package policy holds policies, the order in which they are looked up, and the
// two pure functions that turn a verdict into what is done: Decide for one
// recipient, Combine for the message as a whole. No I/O, no clock, no goroutine.
package policy

import (
	"time"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

// Effective is the policy in force for one address: every field has a value.
// Read-only; shared between messages.
type Effective struct {
	ScanVirus, ScanSpam, ScanAttachments bool
	TagScore, MarkScore, KillScore       verdict.Score
	// Actions has the action of each class (virus_action …); ClassClean is Accept.
	Actions           map[verdict.Class]verdict.Action
	FailedAfter       time.Duration
	FailedFinalAction verdict.Action
	// Quarantine are the classes whose reject, discard and redirect keep a copy.
	Quarantine          []verdict.Class
	QuarantineDays      int
	SubjectTag          string
	UncheckedSubjectTag string
	RejectText          string
	RedirectTo          string
	AllowSenders        map[string]SenderScore
	DenySenders         map[string]SenderScore
	BannedNames         []string
	BannedTypes         []string
	MaxSize             int64 // bytes, 0 = unset
	SymbolScores        map[string]verdict.Score
	BayesScope          string
	DMARCAction         *verdict.Action // nil = unset
	RateLimit           int             // recipients an hour, 0 = unset
	Observe             bool
	// Origin says for each field, by its key, where its value came from:
	// "built-in defaults", "@example.org", "@example.org (like =gold)".
	Origin map[string]string
}

// SenderScore is the value of an allow_senders or deny_senders entry.
type SenderScore struct {
	Score                  verdict.Score
	Unauthenticated, Final bool
}

// Snapshot is an immutable set of policies. Safe for concurrent use.
type Snapshot struct {
	// Generation numbers the set; it grows with each change.
	Generation int64
}

// Inbound returns the policy of a recipient of inbound mail.
func (s *Snapshot) Inbound(rcpt envelope.Address) *Effective { return nil }

// Outbound returns the policy of originating mail of the given identity (login
// or verified sender; the null address if there is none, which gets "@.").
func (s *Snapshot) Outbound(identity envelope.Address) *Effective { return nil }

// HasInbound reports whether an inbound policy other than "@." applies to the
// recipient.
func (s *Snapshot) HasInbound(rcpt envelope.Address) bool { return false }

// Case is what Decide and Combine need to know of a message beside policies.
type Case struct {
	Verdict   *verdict.Verdict
	Envelope  *envelope.Envelope
	Direction envelope.Direction
	// Author is the address of the From field, null if there is none or more than
	// one.
	Author envelope.Address
	// Relay is true if the client is in relay_networks and mustn't get a 5xx.
	Relay bool
	// Local is true for local submission.
	Local bool
	// Failing is for how long this content has been failing; 0 while unknown.
	Failing time.Duration
	// ID is the record's ID, put at the end of replies.
	ID string
}

// Decide says what becomes of one recipient's copy.
func Decide(c *Case, rcpt envelope.Recipient, p *Effective) verdict.Decision {
	return verdict.Decision{}
}

// Capabilities says what the build and the configuration can carry out.
type Capabilities struct {
	// Store: there is a quarantine.
	Store bool
	// Reinject: there is an address to send copies to.
	Reinject bool
}

// Outcome is what Combine makes of all decisions.
type Outcome struct {
	// Disposition has everything but Fields, which the gateway writes from Bearing.
	Disposition Disposition
	// Bearing is what the message that goes on shows of the verdict.
	Bearing Bearing
	// Split is the number of recipients whose reject was carried out otherwise
	// because others get the message; Compromise that of recipients who see
	// something else than their policy says.
	Split, Compromise int
}

// Bearing is what a message that goes on shows of the verdict (DESIGN §7).
type Bearing struct {
	// Untouched: no change at all (observe).
	Untouched bool
	// Outbound: nothing of the verdict is added.
	Outbound bool
	// SpamFields: X-Spam-Status, X-Spam-Score, X-Spam-Level.
	SpamFields bool
	// Flag: X-Spam-Flag: YES, and Yes in X-Spam-Status.
	Flag            bool
	Score, Required verdict.Score
	// Symbols counted into Score.
	Symbols []verdict.Finding
	// Tags are put before the Subject.
	Tags []string
	// Class (neither clean nor marked) makes X-Sluice-Class; Cause its reason and part.
	Class verdict.Class
	Cause *verdict.Finding
}

// Combine turns the decisions for all recipients into one disposition (DESIGN
// §4, "Several recipients, one milter reply").
func Combine(c *Case, ds []verdict.Decision, ps []*Effective, can Capabilities) Outcome {
	return Outcome{}
}
