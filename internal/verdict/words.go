package verdict

import (
	"fmt"
	"strings"
)

// Kind says what sort of thing a finding is. The zero value is KindInfo: it has no
// bearing on what happens to a message.
type Kind uint8

// The kinds of findings.
const (
	KindInfo      Kind = iota // worth knowing, changes nothing
	KindAuth                  // a result of authentication (RFC 8601)
	KindSpam                  // adds its score, which may be negative or 0
	KindUnchecked             // named content that could not be looked at
	KindFailed                // a required scanner gave no definite answer
	KindAmbiguous             // mail programs would read this differently
	KindBanned                // content that policy bans
	KindVirus                 // malware, by name
)

var kindNames = [...]string{"info", "auth", "spam", "unchecked", "failed", "ambiguous", "banned", "virus"}

// String returns the kind's word, as in JSON.
func (k Kind) String() string { return nameOf(kindNames[:], int(k)) }

// MarshalText writes the kind's word.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a kind's word.
func (k *Kind) UnmarshalText(b []byte) error { return parseInto(k, kindNames[:], "kind", string(b)) }

// Class says what a message is for one recipient. Classes are ordered: of two
// whose actions are equally severe the greater one counts. The zero value is
// ClassClean.
type Class uint8

// The classes, the least first.
const (
	ClassClean     Class = iota
	ClassMarked          // score ≥ mark_score
	ClassUnchecked       // content that could not be looked at
	ClassFailed          // a required scanner gave no definite answer
	ClassSpam            // score ≥ kill_score
	ClassAmbiguous       // mail programs would read it differently
	ClassBanned          // banned content
	ClassVirus           // malware
)

var classNames = [...]string{"clean", "marked", "unchecked", "failed", "spam", "ambiguous", "banned", "virus"}

// AllClasses returns every class in ascending order; the caller owns the slice.
func AllClasses() []Class {
	all := make([]Class, len(classNames))
	for i := range all {
		all[i] = Class(i)
	}
	return all
}

// String returns the class's word, as in policies, metrics and JSON.
func (c Class) String() string { return nameOf(classNames[:], int(c)) }

// MarshalText writes the class's word.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a class's word.
func (c *Class) UnmarshalText(b []byte) error { return parseInto(c, classNames[:], "class", string(b)) }

// Action is what policy does to one recipient's copy. Actions are ordered by
// severity. The zero value is Accept.
type Action uint8

// The actions, the least severe first.
const (
	Accept Action = iota
	Tag
	Redirect
	Tempfail
	Quarantine
	Discard
	Reject
)

var actionNames = [...]string{"accept", "tag", "redirect", "tempfail", "quarantine", "discard", "reject"}

// AllActions returns every action in ascending severity; the caller owns the
// slice.
func AllActions() []Action {
	all := make([]Action, len(actionNames))
	for i := range all {
		all[i] = Action(i)
	}
	return all
}

// Delivers reports whether the recipient himself gets the message.
func (a Action) Delivers() bool { return a == Accept || a == Tag }

// String returns the action's word, as in policies, metrics and JSON.
func (a Action) String() string { return nameOf(actionNames[:], int(a)) }

// MarshalText writes the action's word.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads an action's word.
func (a *Action) UnmarshalText(b []byte) error {
	return parseInto(a, actionNames[:], "action", string(b))
}

func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

func parseInto[T ~uint8](dst *T, names []string, what, s string) error {
	for i, n := range names {
		if n == s {
			*dst = T(i)
			return nil
		}
	}
	return fmt.Errorf("unknown %s %q: one of %s", what, s, strings.Join(names, ", "))
}
