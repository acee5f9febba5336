package rules

import (
	"fmt"
	"strconv"
	"strings"
)

// What "if (…)" is told. Rule files for SpamAssassin choose by it what they
// define, so it must be true: no plugin whose rules this build can't run.
const (
	asVersion     = 4.000001
	asPerlVersion = 5.036
)

// plugin reports whether rules of a SpamAssassin plugin run here.
func plugin(name string) bool {
	return name == "Mail::SpamAssassin::Plugin::MIMEHeader"
}

// conditional handles if, ifplugin, else and endif.
func (r *reader) conditional(key, rest string) {
	n := len(r.conds)
	switch key {
	case "if", "ifplugin":
		if n >= maxNesting {
			r.mistake("", "limit", fmt.Sprintf("conditions are nested more than %d deep", maxNesting), remedyFix)
			return
		}
		c := condition{line: r.line, never: n > 0 && !r.conds[n-1].on}
		if c.never {
			c.why = r.conds[n-1].why
		} else {
			r.ask(&c, key, rest)
		}
		r.conds = append(r.conds, c)
	case "else":
		if n == 0 || r.conds[n-1].sawElse {
			r.mistake("", "syntax", "else without if", remedyFix)
			return
		}
		c := &r.conds[n-1]
		c.on, c.sawElse = !c.on && !c.never, true
		if !c.on && !c.never {
			c.why = "the other branch of the condition holds"
		}
	case "endif":
		if n == 0 {
			r.mistake("", "syntax", "endif without if", remedyFix)
			return
		}
		r.closeCondition(r.conds[n-1])
		r.conds = r.conds[:n-1]
	default:
		r.mistake("", "syntax", key+" is not a directive", "write else and a nested if")
	}
}

// ask decides a condition.
func (r *reader) ask(c *condition, key, rest string) {
	if key == "ifplugin" {
		name, _ := word(rest)
		c.on = plugin(name)
		c.why = "the plugin " + lastName(name) + " isn't in this build"
		return
	}
	q := &question{src: rest}
	on, err := q.or()
	if q.space(); err == nil && q.pos < len(q.src) {
		err = fmt.Errorf("%q is not expected here", cut(q.src[q.pos:], 20))
	}
	if err != nil {
		c.never = true
		c.why = "the condition can't be read"
		r.mistake("", "syntax", "the condition can't be read: "+err.Error(), "all lines up to its endif are out; "+remedyFix)
		return
	}
	c.on = on
	c.why = "the condition " + cut(rest, 80) + " isn't met"
}

// closeCondition names what a condition switched off.
func (r *reader) closeCondition(c condition) {
	if c.rules == 0 {
		return
	}
	// The place is the condition's own line, so that the remedy is near.
	r.problem(Problem{File: r.file, Line: c.line, Severity: Unsupported, Why: "plugin",
		What: fmt.Sprintf("%s: %d rules up to line %d are out", c.why, c.rules, r.line), Remedy: remedyLater, Count: c.rules})
}

func lastName(plugin string) string {
	if i := strings.LastIndex(plugin, "::"); i >= 0 {
		plugin = plugin[i+2:]
	}
	return printable(plugin, 60)
}

// question evaluates the expression of an "if" line (Conf, "CONDITIONAL
// SETTINGS").
type question struct {
	src   string
	pos   int
	depth int
}

func (q *question) space() {
	for q.pos < len(q.src) && (q.src[q.pos] == ' ' || q.src[q.pos] == '\t') {
		q.pos++
	}
}

func (q *question) take(s string) bool {
	q.space()
	if strings.HasPrefix(q.src[q.pos:], s) {
		q.pos += len(s)
		return true
	}
	return false
}

func (q *question) or() (bool, error) {
	v, err := q.and()
	for err == nil && q.take("||") {
		var w bool
		w, err = q.and()
		v = v || w
	}
	return v, err
}

func (q *question) and() (bool, error) {
	v, err := q.not()
	for err == nil && q.take("&&") {
		var w bool
		w, err = q.not()
		v = v && w
	}
	return v, err
}

func (q *question) not() (bool, error) {
	if q.depth++; q.depth > maxNesting {
		return false, fmt.Errorf("nested more than %d deep", maxNesting)
	}
	defer func() { q.depth-- }()
	if q.take("!") {
		v, err := q.not()
		return !v, err
	}
	if q.take("(") {
		v, err := q.or()
		if err == nil && !q.take(")") {
			err = fmt.Errorf("a parenthesis is not closed")
		}
		return v, err
	}
	return q.compare()
}

// compare reads a function, a number, or two numbers with an operator between.
func (q *question) compare() (bool, error) {
	a, err := q.value()
	if err != nil {
		return false, err
	}
	for _, op := range [...]string{"<=", ">=", "==", "!=", "<", ">"} {
		if !q.take(op) {
			continue
		}
		b, err := q.value()
		if err != nil {
			return false, err
		}
		switch op {
		case "<=":
			return a <= b, nil
		case ">=":
			return a >= b, nil
		case "==":
			return a == b, nil
		case "!=":
			return a != b, nil
		case "<":
			return a < b, nil
		}
		return a > b, nil
	}
	return a != 0, nil
}

func (q *question) value() (float64, error) {
	q.space()
	start := q.pos
	for q.pos < len(q.src) && (isWord(q.src[q.pos]) || q.src[q.pos] == '.' || q.src[q.pos] == ':') {
		q.pos++
	}
	name := q.src[start:q.pos]
	if name == "" {
		return 0, fmt.Errorf("a value is missing")
	}
	if n, err := strconv.ParseFloat(name, 64); err == nil {
		return n, nil
	}
	switch name {
	case "version":
		return asVersion, nil
	case "perl_version":
		return asPerlVersion, nil
	case "local_tests_only", "true":
		return 1, nil
	case "false":
		return 0, nil
	case "plugin", "can", "has":
		if !q.take("(") {
			return 0, fmt.Errorf("%s needs parentheses", name)
		}
		end := strings.IndexByte(q.src[q.pos:], ')')
		if end < 0 {
			return 0, fmt.Errorf("a parenthesis is not closed")
		}
		arg := strings.TrimSpace(q.src[q.pos : q.pos+end])
		q.pos += end + 1
		return truth(name == "plugin" && plugin(arg)), nil
	}
	return 0, fmt.Errorf("%q is unknown", cut(name, 40))
}
