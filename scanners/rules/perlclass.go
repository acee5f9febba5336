package rules

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ranges is a set of runes: pairs of first and last.
type ranges []rune

// maxOctet ends a complement: text that patterns see has one rune an octet.
const (
	maxOctet = 0xFF
	maxRune  = 0x10FFFF
)

// Perl's classes under /aa: ASCII only.
var (
	classDigit = ranges{'0', '9'}
	classWord  = ranges{'0', '9', 'A', 'Z', '_', '_', 'a', 'z'}
	classSpace = ranges{'\t', '\r', ' ', ' '} // Perl's has VT, RE2's hasn't
	classHoriz = ranges{'\t', '\t', ' ', ' ', 0xA0, 0xA0}
	classVert  = ranges{'\n', '\r', 0x85, 0x85}
)

// not returns the complement of a sorted set of octets.
func (r ranges) not() ranges {
	var out ranges
	next := rune(0)
	for i := 0; i < len(r); i += 2 {
		if r[i] > next {
			out = append(out, next, r[i]-1)
		}
		next = r[i+1] + 1
	}
	if next <= maxOctet {
		out = append(out, next, maxOctet)
	}
	return out
}

// String writes the set as a bracket expression of RE2.
func (r ranges) String() string { return r.bracket(false) }

func (r ranges) bracket(negated bool) string {
	var b strings.Builder
	b.WriteByte('[')
	if negated {
		b.WriteByte('^')
	}
	for i := 0; i < len(r); i += 2 {
		b.WriteString(literal(r[i]))
		if r[i+1] != r[i] {
			b.WriteByte('-')
			b.WriteString(literal(r[i+1]))
		}
	}
	b.WriteByte(']')
	return b.String()
}

// classOf returns the set of a class escape such as \s.
func classOf(c byte) (ranges, bool) {
	switch c {
	case 'd':
		return classDigit, true
	case 'D':
		return classDigit.not(), true
	case 'w':
		return classWord, true
	case 'W':
		return classWord.not(), true
	case 's':
		return classSpace, true
	case 'S':
		return classSpace.not(), true
	case 'h':
		return classHoriz, true
	case 'H':
		return classHoriz.not(), true
	case 'v':
		return classVert, true
	case 'V':
		return classVert.not(), true
	case 'N':
		return ranges{'\n', '\n'}.not(), true
	}
	return nil, false
}

// escape translates a backslash outside a class.
func (t *translator) escape() error {
	s := t.rest()
	if len(s) < 2 {
		return errors.New("the pattern ends in a backslash")
	}
	c := s[1]
	if c == 'N' && len(s) > 2 && s[2] == '{' {
		return fmt.Errorf("needs named characters (\\N{…}): %w", errUnsupported)
	}
	if set, ok := classOf(c); ok {
		t.pos += 2
		t.write(set.String(), true)
		return nil
	}
	switch c {
	case 'A', 'z':
		t.pos += 2
		t.write(s[:2], true)
		return nil
	case 'b', 'B':
		if strings.HasPrefix(s[2:], "{") {
			if _, _, _, quantifier := braces(s[2:]); !quantifier {
				return fmt.Errorf("needs Unicode boundaries (\\%c{…}): %w", c, errUnsupported)
			}
		}
		t.pos += 2
		t.write(s[:2], true)
		return nil
	case 'Z':
		t.pos += 2
		t.write(`(?:\n?\z)`, true)
		return nil
	case 'R':
		t.pos += 2
		t.write(`(?:\r\n|[\n-\r\x{85}])`, true)
		return nil
	case 'k', 'g':
		return fmt.Errorf("needs back-references (\\%c): %w", c, errUnsupported)
	case 'G', 'K', 'X', 'C':
		return fmt.Errorf("needs \\%c: %w", c, errUnsupported)
	case 'p', 'P':
		return fmt.Errorf("needs Unicode properties (\\%c): %w", c, errUnsupported)
	case 'Q', 'E', 'U', 'L', 'u', 'l', 'F':
		return fmt.Errorf("needs \\%c, which works on text only: %w", c, errUnsupported)
	}
	if c >= '1' && c <= '9' && octalLen(s[1:]) < 3 {
		return fmt.Errorf("needs back-references (\\%c): %w", c, errUnsupported)
	}
	r, n, err := charEscape(s)
	if err != nil {
		return err
	}
	t.pos += n
	t.write(literal(r), true)
	return nil
}

// octalLen counts the octal digits at the start of s, at most three.
func octalLen(s string) int {
	n := 0
	for n < len(s) && n < 3 && s[n] >= '0' && s[n] <= '7' {
		n++
	}
	return n
}

// charEscape reads an escape that stands for one character, inside or outside a
// class; n is its length.
func charEscape(s string) (r rune, n int, err error) {
	switch c := s[1]; c {
	case 'n':
		return '\n', 2, nil
	case 't':
		return '\t', 2, nil
	case 'r':
		return '\r', 2, nil
	case 'f':
		return '\f', 2, nil
	case 'a':
		return '\a', 2, nil
	case 'e':
		return 0x1b, 2, nil
	case 'c':
		if len(s) < 3 || s[2] >= 0x80 {
			return 0, 0, errors.New(`\c has no letter`)
		}
		u := s[2]
		if u >= 'a' && u <= 'z' {
			u -= 'a' - 'A'
		}
		return rune(u ^ 0x40), 3, nil
	case 'x':
		return hexEscape(s)
	case 'o':
		if len(s) > 2 && s[2] == '{' {
			return bracedEscape(s, 8)
		}
		return 0, 0, errors.New(`\o has no braces`)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		k := octalLen(s[1:])
		v, err := strconv.ParseUint(s[1:1+k], 8, 32)
		return rune(v & 0x1ff), 1 + k, err
	default:
		return rune(c), 2, nil // as Perl: an unknown escape is the character
	}
}

// hexEscape reads \xH, \xHH, \x{H…} and \x, which is NUL.
func hexEscape(s string) (rune, int, error) {
	if len(s) > 2 && s[2] == '{' {
		return bracedEscape(s, 16)
	}
	k := 0
	for k < 2 && 2+k < len(s) && strings.IndexByte("0123456789abcdefABCDEF", s[2+k]) >= 0 {
		k++
	}
	if k == 0 {
		return 0, 2, nil
	}
	v, err := strconv.ParseUint(s[2:2+k], 16, 32)
	return rune(v), 2 + k, err
}

func bracedEscape(s string, base int) (rune, int, error) {
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return 0, 0, errors.New("an escape has no closing brace")
	}
	v, err := strconv.ParseUint(strings.TrimSpace(s[3:end]), base, 32)
	if err != nil || v > maxRune || v >= 0xD800 && v < 0xE000 {
		return 0, 0, fmt.Errorf("%q is no character", cut(s[:end+1], 20))
	}
	return rune(v), end + 1, nil
}

// posix are the POSIX classes under /aa.
func posix(name string) (ranges, bool) {
	name, negated := strings.CutPrefix(name, "^")
	var r ranges
	switch name {
	case "alpha":
		r = ranges{'A', 'Z', 'a', 'z'}
	case "digit":
		r = classDigit
	case "alnum":
		r = ranges{'0', '9', 'A', 'Z', 'a', 'z'}
	case "upper":
		r = ranges{'A', 'Z'}
	case "lower":
		r = ranges{'a', 'z'}
	case "punct":
		r = ranges{'!', '/', ':', '@', '[', '`', '{', '~'}
	case "print":
		r = ranges{' ', '~'}
	case "graph":
		r = ranges{'!', '~'}
	case "cntrl":
		r = ranges{0, 0x1f, 0x7f, 0x7f}
	case "xdigit":
		r = ranges{'0', '9', 'A', 'F', 'a', 'f'}
	case "space":
		r = classSpace
	case "blank":
		r = ranges{'\t', '\t', ' ', ' '}
	case "word":
		r = classWord
	case "ascii":
		r = ranges{0, 0x7f}
	default:
		return nil, false
	}
	if negated {
		r = r.not()
	}
	return r, true
}

// class translates a bracket expression.
func (t *translator) class() error {
	start := t.pos
	t.pos++
	negated := strings.HasPrefix(t.rest(), "^")
	if negated {
		t.pos++
	}
	var set ranges
	for first := true; ; first = false {
		if t.pos >= len(t.src) {
			return fmt.Errorf("the class %s has no closing bracket", cut(t.src[start:], 20))
		}
		if t.src[t.pos] == ']' && !first {
			t.pos++
			break
		}
		if t.flags.xx && (t.src[t.pos] == ' ' || t.src[t.pos] == '\t') {
			t.pos++
			continue
		}
		lo, group, err := t.classItem()
		if err != nil {
			return err
		}
		if group != nil {
			set = append(set, group...)
			continue
		}
		hi := lo
		if s := t.rest(); len(s) > 1 && s[0] == '-' && s[1] != ']' {
			back := t.pos
			t.pos++
			h, group, err := t.classItem()
			switch {
			case err != nil:
				return err
			case group != nil: // [a-\d]: a, a hyphen and the digits
				t.pos = back
			case h < lo:
				return fmt.Errorf("the range %s is upside down", cut(t.src[back-1:t.pos], 20))
			default:
				hi = h
			}
		}
		set = append(set, lo, hi)
	}
	switch set = normal(set); {
	case len(set) > 0:
		t.write(set.bracket(negated), true)
	case negated:
		t.write(`(?s:.)`, true)
	default: // only characters that no octet is
		t.write(`[^\x{0}-\x{10ffff}]`, true)
	}
	return nil
}

// classItem reads one member of a bracket expression: a character or a set.
func (t *translator) classItem() (rune, ranges, error) {
	s := t.rest()
	if strings.HasPrefix(s, "[:") {
		if end := strings.Index(s, ":]"); end > 2 && !strings.ContainsAny(s[2:end], "][") {
			set, ok := posix(s[2:end])
			if !ok {
				return 0, nil, fmt.Errorf("unknown class %s", cut(s[:end+2], 20))
			}
			t.pos += end + 2
			return 0, set, nil
		}
	}
	if s[0] != '\\' {
		t.pos++
		return rune(s[0]), nil, nil
	}
	if len(s) < 2 {
		return 0, nil, errors.New("the pattern ends in a backslash")
	}
	if set, ok := classOf(s[1]); ok && s[1] != 'N' {
		t.pos += 2
		return 0, set, nil
	}
	switch s[1] {
	case 'b':
		t.pos += 2
		return '\b', nil, nil
	case 'p', 'P', 'N':
		return 0, nil, fmt.Errorf("needs Unicode properties (\\%c): %w", s[1], errUnsupported)
	}
	r, n, err := charEscape(s)
	if err != nil {
		return 0, nil, err
	}
	t.pos += n
	return r, nil, nil
}

// normal sorts a set, joins what overlaps and drops what no octet can be.
func normal(set ranges) ranges {
	pairs := make([][2]rune, 0, len(set)/2)
	for i := 0; i < len(set); i += 2 {
		if set[i] <= maxOctet {
			pairs = append(pairs, [2]rune{set[i], min(set[i+1], maxOctet)})
		}
	}
	slices.SortFunc(pairs, func(a, b [2]rune) int { return int(a[0] - b[0]) })
	var out ranges
	for _, p := range pairs {
		if n := len(out); n > 0 && p[0] <= out[n-1]+1 {
			out[n-1] = max(out[n-1], p[1])
			continue
		}
		out = append(out, p[0], p[1])
	}
	return out
}
