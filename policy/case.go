package policy

import (
	"time"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

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
	// Failing is for how long this content has been failing; 0 while unknown, which
	// never ends.
	Failing time.Duration
	// ID is the record's ID, put at the end of replies.
	ID string
}

// Identity returns the address that originating mail's policy is looked up on:
// the login if it is an address, else the sender if the MTA checked that it
// belongs to the login, else the null address (which gets "@.").
func Identity(env *envelope.Envelope) envelope.Address {
	if env.Login != "" {
		if a, err := envelope.ParseStrict(env.Login); err == nil {
			return a
		}
	}
	if env.SenderVerified {
		return env.Sender.Address
	}
	return envelope.Address{}
}

// Capabilities says what the build and the configuration can carry out.
type Capabilities struct {
	// Store: there is a quarantine.
	Store bool
	// Reinject: there is an address to send copies to.
	Reinject bool
}
