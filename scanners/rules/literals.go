package rules

import (
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// Bounds of what is taken out of a pattern for the prefilter. A single letter is
// found in every line and filters nothing.
const (
	minLiteral  = 2
	maxLiteral  = 32
	maxExact    = 24  // strings of an exact set
	maxRequired = 256 // strings of a required set
	maxLitClass = 6   // members of a class that is spelled out
)

// need is what is known of the text a node matches.
type need struct {
	// exact: the node matches these strings and nothing else; nil if they are too
	// many or unknown.
	exact []string
	// any: each match contains one of these strings; nil if unknown.
	any []string
}

// requiredLiterals returns octet strings, ASCII letters in lower case, of which
// every match of the pattern contains at least one, or nil. Text is folded to
// lower case before it is searched, so the result holds for both cases.
func requiredLiterals(re *syntax.Regexp) []string {
	set := better(needOf(re))
	if weight(set) < minLiteral {
		return nil
	}
	for i, s := range set {
		if len(s) > maxLiteral {
			set[i] = s[:maxLiteral]
		}
	}
	return minimal(unique(set))
}

// minimal drops strings that contain another one: to see it is to see both.
func minimal(set []string) []string {
	out := set[:0:0]
	for i, s := range set {
		redundant := false
		for j, other := range set {
			if i != j && strings.Contains(s, other) {
				redundant = true
				break
			}
		}
		if !redundant {
			out = append(out, s)
		}
	}
	return out
}

// weight is the length of the shortest string, 0 for an unknown set. What stands
// in every link weighs next to nothing.
func weight(set []string) int {
	if len(set) == 0 {
		return 0
	}
	w := len(set[0])
	for _, s := range set {
		if everywhere(s) {
			return minLiteral
		}
		w = min(w, len(s))
	}
	return w
}

// everywhere tells strings that stand in every link.
func everywhere(s string) bool {
	switch s {
	case "http://", "https://", "http://www.", "https://www.":
		return true
	}
	return false
}

// better returns the more telling of a node's two sets.
func better(n need) []string { return choose(n.exact, n.any) }

// choose returns the set with the longer shortest string, the smaller one of
// two alike.
func choose(a, b []string) []string {
	wa, wb := weight(a), weight(b)
	if wa > wb || wa == wb && len(a) != 0 && len(a) <= len(b) {
		return a
	}
	return b
}

func needOf(re *syntax.Regexp) need {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return need{exact: []string{""}}
	case syntax.OpLiteral:
		return needOfLiteral(re)
	case syntax.OpCharClass:
		return needOfClass(re)
	case syntax.OpCapture:
		return needOf(re.Sub[0])
	case syntax.OpQuest:
		n := needOf(re.Sub[0])
		if n.exact != nil && len(n.exact) < maxExact {
			return need{exact: append([]string{""}, n.exact...)}
		}
	case syntax.OpPlus:
		return need{any: better(needOf(re.Sub[0]))}
	case syntax.OpRepeat:
		if re.Min > 0 {
			return need{any: better(needOf(re.Sub[0]))}
		}
	case syntax.OpConcat:
		return needOfConcat(re.Sub)
	case syntax.OpAlternate:
		return needOfAlternate(re.Sub)
	}
	return need{}
}

func needOfLiteral(re *syntax.Regexp) need {
	var b []byte
	for _, r := range re.Rune {
		if r >= 0x100 || r >= utf8.RuneSelf && re.Flags&syntax.FoldCase != 0 {
			// Its octets differ by case: what stands before it is still required.
			return need{any: oneOf(string(b))}
		}
		b = append(b, lower(byte(r)))
	}
	return need{exact: []string{string(b)}}
}

func oneOf(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func needOfClass(re *syntax.Regexp) need {
	var set []string
	for i := 0; i < len(re.Rune); i += 2 {
		lo, hi := re.Rune[i], re.Rune[i+1]
		if lo >= 0x100 { // no octet: such as the Kelvin sign that (?i)k brings
			continue
		}
		if hi-lo >= 2*maxLitClass {
			return need{}
		}
		for r := lo; r <= min(hi, 0xFF); r++ {
			set = append(set, string([]byte{lower(byte(r))}))
		}
	}
	if set = unique(set); len(set) > maxLitClass || len(set) == 0 {
		return need{}
	}
	return need{exact: set}
}

// needOfConcat multiplies exact sets as long as they stay small, and keeps the
// most telling set met on the way.
func needOfConcat(subs []*syntax.Regexp) need {
	run, best, whole := []string{""}, []string(nil), true
	flush := func() {
		best = choose(best, run)
		run = []string{""}
	}
	for _, sub := range subs {
		n := needOf(sub)
		if n.exact == nil {
			flush()
			best = choose(best, n.any)
			whole = false
			continue
		}
		if len(run)*len(n.exact) > maxExact || everywhere(run[0]) {
			flush()
			whole = false
			if len(n.exact) > maxExact {
				best = choose(best, n.exact)
				continue
			}
		}
		run = product(run, n.exact)
		if len(run[0]) > 4*maxLiteral {
			flush()
			whole = false
		}
	}
	if whole {
		return need{exact: run}
	}
	return need{any: choose(best, run)}
}

func product(a, b []string) []string {
	out := make([]string, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			out = append(out, x+y)
		}
	}
	return unique(out)
}

func needOfAlternate(subs []*syntax.Regexp) need {
	var exact, some []string
	allExact, known := true, true
	for _, sub := range subs {
		n := needOf(sub)
		if n.exact == nil {
			allExact = false
		}
		exact = append(exact, n.exact...)
		s := better(n)
		if weight(s) == 0 {
			known = false
		}
		some = append(some, s...)
		if len(some) > maxRequired || len(exact) > maxRequired {
			return need{}
		}
	}
	n := need{}
	if allExact {
		n.exact = unique(exact)
	}
	if known {
		n.any = unique(some)
	}
	return n
}

// unique returns the strings without doubles, in the order of first sight.
func unique(set []string) []string {
	seen := make(map[string]bool, len(set))
	out := set[:0:0]
	for _, s := range set {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// lower folds an ASCII letter.
func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}
