// Package envelope holds what SMTP says about a message apart from its content:
// the client, the sender, the recipients and their ESMTP arguments, and the
// reading of addresses. It is pure and imports nothing of ours.
//
// Invariants:
//   - An address that can't be read is kept as it came and never matches a
//     policy by accident; reading one never fails and never panics.
//   - A client address that is absent or unreadable is the zero netip.Addr and
//     is trusted nowhere.
//
// Standards: RFC 5321 (envelope), RFC 5890 (A-labels), RFC 6531 (SMTPUTF8).
package envelope

import (
	"net/netip"
	"strings"
	"time"
)

// Direction says which way a message goes. The zero value is Inbound.
type Direction uint8

// The directions.
const (
	Inbound  Direction = iota // from outside, to our users
	Outbound                  // originating: from our own users
)

// String returns "inbound" or "outbound", as in policies and metrics.
func (d Direction) String() string {
	if d == Outbound {
		return "outbound"
	}
	return "inbound"
}

// Parameter is one ESMTP argument of MAIL or RCPT, such as SIZE=1000 or
// NOTIFY=NEVER (RFC 5321 §4.1.1.11). Value is "" if there was no '='.
type Parameter struct {
	Name, Value string
}

// Sender is the reverse-path of MAIL FROM.
type Sender struct {
	Address    Address
	Parameters []Parameter
}

// Recipient is a forward-path of RCPT TO.
type Recipient struct {
	Address    Address
	Parameters []Parameter
}

// Client is who speaks SMTP to the MTA.
type Client struct {
	// Addr is the client's IP address, invalid if unknown or if there is none.
	Addr netip.Addr
	// Port is the client's port, 0 for local submission.
	Port uint16
	// Name is the verified host name or "unknown", as the MTA says.
	Name string
	// Helo is the name the client gave.
	Helo string
}

// Envelope is one message's envelope. The session that made it owns it until
// it is handed to the gateway; from then on nobody changes it.
type Envelope struct {
	// SessionID is our own name of the SMTP session, QueueID the MTA's name of
	// the message ("" if the MTA has not told one).
	SessionID, QueueID string
	// Daemon is {daemon_name}, Host the macro j (the MTA's own name), MTA the
	// macro v (its version).
	Daemon, Host, MTA string
	// Login is {auth_authen}, "" if the client didn't authenticate.
	Login string
	// SenderVerified is true if the MTA checked that the sender belongs to the
	// login.
	SenderVerified bool
	Client         Client
	Sender         Sender
	Recipients     []Recipient
	// Local is true for local submission (no SMTP client: port 0 and no login).
	Local bool
	// HandsOverAtOnce is true if the MTA is known to send the whole message only
	// after it has all of it (Postfix): waiting for its end costs nothing.
	HandsOverAtOnce bool
	// Macros are all macros that were sent, by name, the latest stage winning.
	Macros map[string]string
	// Received is when the MTA opened the transaction (MAIL FROM).
	Received time.Time
}

// ID returns the queue ID, or the session ID before there is one.
func (e *Envelope) ID() string {
	if e.QueueID != "" {
		return e.QueueID
	}
	return e.SessionID
}

// Lookup returns the value of the named ESMTP parameter, without regard to
// case, and whether it was given.
func Lookup(ps []Parameter, name string) (string, bool) {
	for _, p := range ps {
		if strings.EqualFold(p.Name, name) {
			return p.Value, true
		}
	}
	return "", false
}
