// Package verdict holds the words that all parts share: findings, scores,
// kinds, classes, actions, the verdict on a message and the decision for one
// recipient. It is pure: values only, no I/O, no clock.
//
// Invariants:
//   - A sum of scores does not depend on the order of the findings.
//   - Silence is never clean: a scanner that gave no answer is in
//     Verdict.Scanners with Complete false.
package verdict

import (
	"slices"
	"strings"
	"time"
)

// Finding is one thing that a scanner, or the reader of the message, saw.
// Findings are plain values; strings come cleaned of control characters from
// whoever makes them and are bounded (Symbol 128, Description 256, Detail 512
// bytes, see Printable).
type Finding struct {
	// Symbol names the finding in SpamAssassin's form: letters, digits, '_'
	// (and for viruses the signature's own name in Detail).
	Symbol string `json:"symbol"`
	// Kind says what it means for the message.
	Kind Kind `json:"kind"`
	// Score is added to the message's sum if the field that the scanner belongs
	// to is on for the recipient (KindSpam and KindAuth only).
	Score Score `json:"score"`
	// Description says in one plain line what was seen.
	Description string `json:"description"`
	// Scanner is the name of the scanner, or "reader" or "gateway".
	Scanner string `json:"scanner"`
	// Part is the path of the MIME part ("2.1"), "" for the whole message.
	Part string `json:"part"`
	// Detail is the evidence: a signature's name, a file name, an endpoint's
	// trouble. Never the text of a message.
	Detail string `json:"detail,omitempty"`
}

// Names of the finders that are not scanners of the pool.
const (
	FinderReader  = "reader"
	FinderGateway = "gateway"
	FinderPolicy  = "policy"
)

// ScannerRun says how one scanner fared with one message.
type ScannerRun struct {
	Name     string
	Required bool
	// Complete is true if the scanner gave a definite answer about the whole
	// message, whatever it found.
	Complete bool
	// Queued is the time spent waiting for a free worker, Took the time scanning.
	Queued, Took time.Duration
	// Err says why there is no complete answer; "" if there is.
	Err string
}

// Verdict is what is known about a message, the same for all its recipients.
// It is not changed once it has been handed on, so it may be read from several
// goroutines.
type Verdict struct {
	// Findings of the reader and of all scanners, in the order of Sort.
	Findings []Finding
	// Scanners has a record for each scanner that was asked.
	Scanners []ScannerRun
	// Size is the message's length in bytes as the MTA holds it.
	Size int64
	// Digest is the SHA-256 of the message's bytes.
	Digest [32]byte
}

// Run returns the record of the named scanner, and whether it was asked.
func (v *Verdict) Run(scanner string) (ScannerRun, bool) {
	for _, r := range v.Scanners {
		if r.Name == scanner {
			return r, true
		}
	}
	return ScannerRun{}, false
}

// Errors lists what failed, one line a scanner, for people.
func (v *Verdict) Errors() []string {
	errs := []string{}
	for _, r := range v.Scanners {
		if r.Err != "" {
			errs = append(errs, r.Name+": "+r.Err)
		}
	}
	return errs
}

// Sort puts findings into the order in which they are shown and recorded:
// gravest kind first, then higher absolute score, then symbol and part.
func Sort(fs []Finding) {
	slices.SortStableFunc(fs, func(a, b Finding) int {
		if a.Kind != b.Kind {
			return int(b.Kind) - int(a.Kind)
		}
		if d := abs(b.Score) - abs(a.Score); d != 0 {
			if d > 0 {
				return 1
			}
			return -1
		}
		if c := strings.Compare(a.Symbol, b.Symbol); c != 0 {
			return c
		}
		return strings.Compare(a.Part, b.Part)
	})
}

func abs(s Score) Score {
	if s < 0 {
		return -s
	}
	return s
}

// Decision is what policy decided for one recipient, or for the sender's side
// of originating mail. It is a plain value.
type Decision struct {
	// Recipient is the envelope's address, as the MTA gave it.
	Recipient string
	// Class is the one that counted; Classes all that applied, in the order of
	// their gravity, never containing ClassClean.
	Class   Class
	Classes []Class
	Action  Action
	// Score is this recipient's sum; Mark and Kill his thresholds.
	Score, Mark, Kill Score
	// Symbols are the findings that counted into Score for him, sorted by name.
	Symbols []Finding
	// Policy names where the deciding action came from: "@example.org: spam_action",
	// or "built-in defaults".
	Policy string
	// Reason says in one line for people why.
	Reason string
	// Cause is the finding that made the class, if one did.
	Cause *Finding
}

// Has reports whether class c applied.
func (d *Decision) Has(c Class) bool { return slices.Contains(d.Classes, c) }

// Printable returns s on one line of at most max bytes, printable, valid UTF-8:
// control characters become blanks, what is not UTF-8 becomes '?', and a cut is
// made at a rune. For values that foreign text flows into.
func Printable(s string, max int) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	if len(s) <= max {
		return s
	}
	cut := 0
	for i := range s {
		if i > max {
			break
		}
		cut = i
	}
	return s[:cut]
}

// Merge makes one decision of two for the same recipient: the more severe action
// counts with its class and reason, ties by class, then a's. Classes are those of
// both; Score is the higher one with its symbols, Mark and Kill the lower ones.
func Merge(a, b Decision) Decision {
	d, o := a, b
	if b.Action > a.Action || b.Action == a.Action && b.Class > a.Class {
		d, o = b, a
	}
	if o.Score > d.Score {
		d.Score, d.Symbols = o.Score, o.Symbols
	}
	d.Mark, d.Kill = min(d.Mark, o.Mark), min(d.Kill, o.Kill)
	classes := slices.Concat(a.Classes, b.Classes)
	slices.SortFunc(classes, func(x, y Class) int { return int(y) - int(x) })
	d.Classes = slices.Compact(classes)
	return d
}
