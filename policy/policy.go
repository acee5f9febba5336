// Package policy holds policies, the order in which they are looked up, and the
// two pure functions that turn a verdict into what is done: Decide for one
// recipient, Combine for the message as a whole. No I/O, no clock, no goroutine.
//
// One table (Fields) names every field with its type, default, meaning and what
// it needs to have an effect; reading, explaining and the columns of a database
// all go by it.
//
// Invariants:
//   - A Snapshot and the Effective policies it hands out never change.
//   - A lenient class never hides a stricter one: of all classes that apply the
//     one whose action is the most severe counts, and all are recorded.
//   - The order of a verdict's findings makes no difference to a decision.
//   - A message is never accepted with nobody left to get it, and never delivered
//     to a recipient whose policy stops it.
//   - Mail is thrown away only where a policy says discard.
package policy

import (
	"slices"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

// BuiltIn is the origin of a value that no policy set.
const BuiltIn = "built-in defaults"

// classCount is the number of verdict's classes.
const classCount = int(verdict.ClassVirus) + 1

// Effective is the policy in force for one address: every field has a value.
// Read-only; shared between messages.
type Effective struct {
	// Direction is that of the policies it was made from.
	Direction envelope.Direction

	ScanVirus, ScanSpam, ScanAttachments bool
	TagScore, MarkScore, KillScore       verdict.Score
	// Actions has the action of each class (virus_action …), by verdict.Class;
	// that of ClassClean is Accept.
	Actions           [classCount]verdict.Action
	FailedAfter       time.Duration
	FailedFinalAction verdict.Action
	// Quarantine are the classes whose reject, discard and redirect keep a copy.
	Quarantine          []verdict.Class
	QuarantineDays      int
	SubjectTag          string
	UncheckedSubjectTag string
	RejectText          string
	RedirectTo          string // "" = unset
	AllowSenders        Layers[SenderScore]
	DenySenders         Layers[SenderScore]
	BannedNames         []string
	BannedTypes         []string
	MaxSize             int64 // bytes, 0 = no limit
	SymbolScores        Layers[verdict.Score]
	BayesScope          string
	DMARCAction         *verdict.Action // nil = unset
	RateLimit           int             // recipients an hour, 0 = no limit
	Observe             bool

	// sources are the places that values came from, origins says for each field
	// which; 0 is BuiltIn.
	sources []string
	origins [fieldCount]uint8
	// chain are the policies that apply, the most specific first.
	chain []string
}

// Origin says where the value of the field with that key came from: BuiltIn,
// "@example.org", "@example.org (like =gold)", or several of these for a map
// that was merged; "" for an unknown key.
func (e *Effective) Origin(key string) string {
	f, ok := Lookup(key)
	if !ok {
		return ""
	}
	if n := e.origins[f.index]; n > 0 {
		return e.sources[n-1]
	}
	return BuiltIn
}

// Chain returns the policies that apply, the most specific first, plans after
// the policy that names them: "@example.org", "@example.org (like =gold)". It is
// empty where the built-in defaults alone hold. The caller owns the slice.
func (e *Effective) Chain() []string { return slices.Clone(e.chain) }

// SenderScore is the value of an allow_senders or deny_senders entry.
type SenderScore struct {
	// Score is added to the sum: at most 0 for allow, at least 0 for deny.
	Score verdict.Score
	// Unauthenticated lets an allow entry count without SPF or DKIM. Final makes
	// the message never spam nor marked (allow), or spam (deny).
	Unauthenticated, Final bool
}

// Map is the value of a field that merges key by key. A nil value removes a key
// that would be inherited from a more general policy.
type Map[V any] map[string]*V

// Layers is what several policies' Maps make together, the most specific first.
// The zero value is empty. Read-only.
type Layers[V any] []Map[V]

// Get returns the value of a key: of the first layer that has it, and none if
// that one removes it.
func (l Layers[V]) Get(key string) (V, bool) {
	for _, m := range l {
		if v, ok := m[key]; ok {
			if v == nil {
				break
			}
			return *v, true
		}
	}
	var none V
	return none, false
}

// Merged returns all keys that hold, as one map. The caller owns it.
func (l Layers[V]) Merged() map[string]V {
	all := map[string]V{}
	for _, m := range slices.Backward(l) {
		for k, v := range m {
			if v == nil {
				delete(all, k)
			} else {
				all[k] = *v
			}
		}
	}
	return all
}
