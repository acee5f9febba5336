package strictyaml

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// MaxProblems bounds how many problems one file can have; the last one says
// that there are more.
const MaxProblems = 500

// Problem is one mistake in a file.
type Problem struct {
	// File is the name as it was given to Decode.
	File string
	// Line and Column are counted from 1, columns in characters. 0 means that no
	// place, or no column, can be named.
	Line, Column int
	// Key is the path of the key, "policies[3].spam_action"; "" for the file.
	Key string
	// Message says what is wrong, Remedy what to do ("" if Message says it all).
	Message, Remedy string
}

// String returns "file:line:column: key: message; remedy".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Line > 0 && p.Column > 0 {
		fmt.Fprintf(&b, ":%d", p.Column)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.Message)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Problems are the mistakes of one or more files. It is an error if there are
// any: see Err.
type Problems []Problem

// Error returns all problems, a line each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err returns the problems as an error, nil if there are none.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// Sort orders the problems by file, line and column.
func (ps Problems) Sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column)
	})
}

// ValueError is an error with a remedy. An encoding.TextUnmarshaler that returns
// one (or wraps one) has both shown in the Problem.
type ValueError struct {
	Message, Remedy string
}

// Error returns message and remedy.
func (e *ValueError) Error() string {
	if e.Remedy == "" {
		return e.Message
	}
	return e.Message + "; " + e.Remedy
}

// Suggest returns the word of known that word was probably meant to be, "" if none is
// near.
func Suggest(word string, known []string) string {
	word = strings.ToLower(word)
	if len(word) > 100 {
		return ""
	}
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, k := range known {
		if len(k) > 100 {
			continue
		}
		if d := distance(word, strings.ToLower(k)); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with the
// next one (optimal string alignment).
func distance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
