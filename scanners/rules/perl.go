package rules

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// errUnsupported is wrapped by what Perl can match and this build can't.
var errUnsupported = errors.New("not in this build")

// Bounds of a single pattern.
const (
	maxPattern = 32 << 10 // bytes as written
	maxProgram = 20_000   // instructions of the compiled form, about
	maxRepeat  = 1_000    // RE2's bound of {n,m}
	maxGroups  = 200      // nesting
)

// pattern is a compiled regular expression. It looks at octets, as Perl does at
// a byte string.
type pattern struct {
	expr string // in RE2's syntax
	prog *syntax.Prog
	dfa  *dfa // of prog alone
	// counts: it counts repetitions, so that an automaton has many states that text
	// leads to. Joined with others the product of these states would be met.
	counts bool
	// regexp compiles expr, once, for what the automaton can't tell.
	regexp func() (*regexp.Regexp, error)
	// literals: every match contains at least one of these octet strings, ASCII
	// letters in lower case; nil if nothing is known.
	literals []string
}

// match reports whether the pattern is found in s; false if the clock, which may
// be nil, runs out.
func (p *pattern) match(s string, c *clock) bool { return p.dfa.found(s, c) }

// count returns the number of matches in s, at most limit.
func (p *pattern) count(s string, limit int, c *clock) int {
	if limit < 1 || !p.match(s, c) {
		return 0
	}
	re, err := p.regexp()
	if limit == 1 || err != nil { // the automaton is of the same expression
		return 1
	}
	c.work(slowWork * len(s))
	return len(re.FindAllStringIndex(octets(s), limit))
}

// slowWork is how many times the automaton's time regexp takes for an octet.
const slowWork = 50

// octets returns s with each octet as one rune, which is how Perl sees a byte
// string. Text that is ASCII is returned as it is, without a copy.
func octets(s string) string {
	i := 0
	for i < len(s) && s[i] < utf8.RuneSelf {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + len(s)/4)
	b.WriteString(s[:i])
	for ; i < len(s); i++ {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

// compileRegex reads a Perl match operator (/…/i, m{…}, m!…!) and compiles what
// stands in it.
func compileRegex(src string) (*pattern, error) {
	body, flags, err := splitRegex(src)
	if err != nil {
		return nil, err
	}
	expr, err := translate(body, flags)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, parseFailure(err)
	}
	if n := size(tree); n > maxProgram {
		return nil, fmt.Errorf("the pattern grows to %d instructions (at most %d): %w", n, maxProgram, errUnsupported)
	}
	counts := repeats(tree)
	tree = tree.Simplify()
	prog, err := syntax.Compile(tree)
	if err != nil {
		return nil, parseFailure(err)
	}
	return &pattern{expr: expr, prog: prog, counts: counts, dfa: newDFA(prog), literals: requiredLiterals(tree),
		regexp: sync.OnceValues(func() (*regexp.Regexp, error) { return regexp.Compile(expr) })}, nil
}

// size estimates the instructions of a pattern once its repetitions are written
// out, so that one that is too large costs nothing.
func size(re *syntax.Regexp) int {
	n := max(1, len(re.Rune))
	if re.Op == syntax.OpCharClass {
		n = 1
	}
	for _, sub := range re.Sub {
		n += size(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, 1<<30/maxRepeat)
}

// maxJoinedRepeat is how far a pattern may count that is joined with others.
const maxJoinedRepeat = 3

// repeats reports whether the pattern counts further than that.
func repeats(re *syntax.Regexp) bool {
	return re.Op == syntax.OpRepeat && max(re.Min, re.Max) > maxJoinedRepeat || slices.ContainsFunc(re.Sub, repeats)
}

// parseFailure tells a limit of RE2 from a pattern that is wrong in Perl too.
func parseFailure(err error) error {
	var se *syntax.Error
	if errors.As(err, &se) {
		switch se.Code {
		case syntax.ErrInvalidRepeatSize, syntax.ErrNestingDepth, syntax.ErrLarge:
			return fmt.Errorf("%s: %w", se.Code, errUnsupported)
		}
		return fmt.Errorf("%s: %q", se.Code, cut(se.Expr, 60))
	}
	return err
}

// splitRegex parts a match operator into pattern and flags. As in SpamAssassin
// the pattern ends at the last delimiter of the line.
func splitRegex(src string) (body, flags string, err error) {
	s := strings.TrimSpace(src)
	if len(s) > maxPattern {
		return "", "", fmt.Errorf("the pattern has %d bytes (at most %d): %w", len(s), maxPattern, errUnsupported)
	}
	if strings.HasPrefix(s, "m") {
		s = s[1:]
	} else if !strings.HasPrefix(s, "/") {
		return "", "", errors.New("no pattern: it stands between slashes, or after m as in m{…}")
	}
	if s == "" || isWord(s[0]) || s[0] <= ' ' || s[0] >= 0x80 {
		return "", "", errors.New("no delimiter after m")
	}
	end := s[0]
	switch end {
	case '{':
		end = '}'
	case '(':
		end = ')'
	case '[':
		end = ']'
	case '<':
		end = '>'
	}
	last := strings.LastIndexByte(s, end)
	if last < 1 {
		return "", "", fmt.Errorf("the pattern has no closing %q (a # in it is written \\#)", string(end))
	}
	body, flags = s[1:last], s[last+1:]
	for _, f := range flags {
		if !strings.ContainsRune("imsxnaulpo", f) {
			return "", "", fmt.Errorf("unknown flag %q after the pattern", cut(flags, 20))
		}
	}
	if body == "" {
		return "", "", errors.New("the pattern is empty")
	}
	return body, flags, nil
}

// perlFlags are the modifiers in force at one place of a pattern. i is left to
// RE2; the others are written out.
type perlFlags struct{ m, s, x, xx, i bool }

func (f *perlFlags) set(c byte, on bool) bool {
	switch c {
	case 'i':
		f.i = on
	case 'm':
		f.m = on
	case 's':
		f.s = on
	case 'x':
		f.x = on
		f.xx = f.xx && on
	case 'a', 'u', 'l', 'd', 'p', 'n', 'o': // no bearing on octets under /aa
	default:
		return false
	}
	return true
}

// translator turns one Perl pattern into RE2's syntax, in one pass.
type translator struct {
	src   string
	pos   int
	out   strings.Builder
	flags perlFlags
	outer []perlFlags // flags to come back to at each open group's end
	// atom is true if what was written last can be repeated.
	atom bool
}

// translate turns a Perl pattern with its flags into one for Go's regexp, to be
// run on text that has gone through octets. It follows perlre of Perl 5.36
// under /aa on byte strings. Known deviation: under /m, '^' also matches behind
// a newline that ends the text.
func translate(body, flags string) (string, error) {
	t := &translator{src: body}
	for i := range len(flags) {
		t.flags.set(flags[i], true)
	}
	t.flags.xx = strings.Contains(flags, "xx")
	if t.flags.i {
		t.out.WriteString("(?i)")
	}
	for t.pos < len(t.src) {
		if err := t.step(); err != nil {
			return "", err
		}
	}
	if len(t.outer) > 0 {
		return "", errors.New("a group has no closing parenthesis")
	}
	return t.out.String(), nil
}

func (t *translator) rest() string { return t.src[t.pos:] }

func (t *translator) write(s string, atom bool) {
	t.out.WriteString(s)
	t.atom = atom
}

// step translates the next item.
func (t *translator) step() error {
	c := t.src[t.pos]
	if t.flags.x {
		switch {
		case c <= ' ' && strings.IndexByte(" \t\n\r\f\v", c) >= 0:
			t.pos++
			return nil
		case c == '#':
			if nl := strings.IndexByte(t.rest(), '\n'); nl >= 0 {
				t.pos += nl + 1
			} else {
				t.pos = len(t.src)
			}
			return nil
		}
	}
	switch c {
	case '\\':
		return t.escape()
	case '[':
		return t.class()
	case '(':
		return t.open()
	case '*', '+', '?', '{':
		return t.repeat()
	}
	t.pos++
	switch c {
	case ')':
		if len(t.outer) == 0 {
			return errors.New("unmatched )")
		}
		t.flags = t.outer[len(t.outer)-1]
		t.outer = t.outer[:len(t.outer)-1]
		t.write(")", true)
	case '|':
		t.write("|", false)
	case '.':
		if t.flags.s {
			t.write(`(?s:.)`, true)
		} else {
			t.write(`[^\n]`, true)
		}
	case '^':
		if t.flags.m {
			t.write(`(?m:^)`, true)
		} else {
			t.write(`\A`, true)
		}
	case '$':
		if t.flags.m {
			t.write(`(?m:$)`, true)
		} else {
			t.write(`(?:\n?\z)`, true)
		}
	default:
		t.write(literal(rune(c)), true)
	}
	return nil
}

// repeat translates a quantifier, or a brace that isn't one.
func (t *translator) repeat() error {
	q := t.src[t.pos : t.pos+1]
	if q == "{" {
		lo, hi, n, ok := braces(t.rest())
		if !ok {
			t.pos++
			t.write(`\{`, true)
			return nil
		}
		for _, s := range []string{lo, hi} {
			if v, err := strconv.Atoi(s); s != "" && (err != nil || v > maxRepeat) {
				return fmt.Errorf("the repetition %s is above %d: %w", cut(t.rest()[:n], 40), maxRepeat, errUnsupported)
			}
		}
		if q = "{" + lo + "}"; strings.ContainsRune(t.rest()[:n], ',') {
			q = "{" + orZero(lo) + "," + hi + "}"
		}
		t.pos += n
	} else {
		t.pos++
	}
	if !t.atom {
		return fmt.Errorf("nothing to repeat before %q", q)
	}
	if t.pos < len(t.src) {
		switch t.src[t.pos] {
		case '?':
			q += "?"
			t.pos++
		case '+':
			return fmt.Errorf("needs a possessive quantifier (%s+): %w", q, errUnsupported)
		}
	}
	t.write(q, false)
	return nil
}

func orZero(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// braces reads {n}, {n,}, {n,m} or {,m} at the start of s; n is its length.
func braces(s string) (lo, hi string, n int, ok bool) {
	end := strings.IndexByte(s, '}')
	if end < 2 {
		return "", "", 0, false
	}
	lo, hi, comma := strings.Cut(s[1:end], ",")
	lo, hi = strings.TrimSpace(lo), strings.TrimSpace(hi)
	if !digits(lo) || !digits(hi) || lo == "" && hi == "" || !comma && lo == "" || len(lo) > 9 || len(hi) > 9 {
		return "", "", 0, false
	}
	return lo, hi, end + 1, true
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// open translates what begins with a parenthesis.
func (t *translator) open() error {
	if len(t.outer) >= maxGroups {
		return fmt.Errorf("groups are nested more than %d deep: %w", maxGroups, errUnsupported)
	}
	s := t.rest()
	if strings.HasPrefix(s, "(*") {
		return fmt.Errorf("needs a backtracking verb: %w", errUnsupported)
	}
	if !strings.HasPrefix(s, "(?") {
		t.push("(?:", 1)
		return nil
	}
	switch s = s[2:]; {
	case strings.HasPrefix(s, "#"):
		end := strings.IndexByte(s, ')')
		if end < 0 {
			return errors.New("a comment has no closing parenthesis")
		}
		t.pos += 2 + end + 1
		return nil
	case strings.HasPrefix(s, "="), strings.HasPrefix(s, "!"), strings.HasPrefix(s, "<="), strings.HasPrefix(s, "<!"):
		return fmt.Errorf("needs look-around: %w", errUnsupported)
	case strings.HasPrefix(s, ">"):
		return fmt.Errorf("needs an atomic group: %w", errUnsupported)
	case strings.HasPrefix(s, "|"), strings.HasPrefix(s, "("), strings.HasPrefix(s, "&"), strings.HasPrefix(s, "R"),
		strings.HasPrefix(s, "P="), strings.HasPrefix(s, "P>"), strings.HasPrefix(s, "{"), strings.HasPrefix(s, "?"):
		return fmt.Errorf("needs a backtracker (%s): %w", cut(t.rest(), 8), errUnsupported)
	}
	for _, o := range [...][2]string{{"P<", ">"}, {"<", ">"}, {"'", "'"}} {
		if name, ok := strings.CutPrefix(s, o[0]); ok {
			end := strings.Index(name, o[1])
			if end < 1 {
				return errors.New("a named group has no name")
			}
			t.push("(?:", 2+len(o[0])+end+1)
			return nil
		}
	}
	return t.inlineFlags(s)
}

// push opens a group whose opening has n bytes in the source.
func (t *translator) push(open string, n int) {
	t.outer = append(t.outer, t.flags)
	t.pos += n
	t.write(open, false)
}

// inlineFlags translates (?i), (?i:…), (?^s-x:…); s begins behind the "(?".
func (t *translator) inlineFlags(s string) error {
	f, on := t.flags, true
	for i := range len(s) {
		switch c := s[i]; {
		case c == '^' && i == 0:
			f = perlFlags{}
		case c == '-' && on:
			on = false
		case c == ':':
			t.push("(?:", 2+i+1)
			t.switchCase(f)
			return nil
		case c == ')':
			t.pos += 2 + i + 1
			t.switchCase(f)
			return nil
		case !f.set(c, on):
			return fmt.Errorf("unknown group (?%s", cut(s, 12))
		}
	}
	return errors.New("a group has no closing parenthesis")
}

// switchCase makes f the flags in force; RE2 has the same scope for (?i).
func (t *translator) switchCase(f perlFlags) {
	if f.i != t.flags.i {
		if f.i {
			t.write("(?i)", false)
		} else {
			t.write("(?-i)", false)
		}
	}
	t.flags = f
}

// literal quotes one rune for RE2.
func literal(r rune) string {
	if r < utf8.RuneSelf && (isWord(byte(r)) || r == ' ') {
		return string(r)
	}
	return fmt.Sprintf(`\x{%x}`, r)
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// cut shortens s for a message to people.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
