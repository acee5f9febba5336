package rules

import (
	"fmt"
	"strings"
)

// Bounds of what is read from files.
const (
	maxFileBytes  = 8 << 20
	maxTotalBytes = 64 << 20
	maxFiles      = 2_000
	maxLine       = 64 << 10
	maxRules      = 50_000
	maxName       = 128
	maxNesting    = 64 // of conditionals
	maxProblems   = 10_000
)

// kind says what a rule looks at.
type kind uint8

const (
	kindHeader kind = iota
	kindMIMEHeader
	kindBody
	kindRaw
	kindURI
	kindFull
	kindFact // one of our own functions, see facts.go
	kindMeta
)

// definition is a rule as it stands in a file; text is what follows its name.
type definition struct {
	name      string
	directive string
	text      string
	file      string
	line      int
}

// reader gathers what stands in .cf files. Later lines override earlier ones.
type reader struct {
	defs      map[string]*definition
	order     []string // names by first sight
	scores    map[string]setting
	describes map[string]string
	tflags    map[string]string
	priority  map[string]int
	// hidden are rules seen only where a conditional switched them off: a meta
	// that needs one can't be run.
	hidden map[string]hiddenRule
	// replaced are the rules in which ReplaceTags would fill in tags.
	replaced map[string]bool

	problems []Problem
	dropped  int
	grouped  map[string]int // index of the problem that counts lines of one kind

	file  string
	line  int
	conds []condition
	total int64
	files int
}

// setting is a score line.
type setting struct {
	values []string
	file   string
	line   int
}

// hiddenRule is where a rule was seen, and what would have to be there.
type hiddenRule struct {
	file string
	line int
	why  string
}

// condition is one open ifplugin or if.
type condition struct {
	line int
	// on: lines here count; never: an outer condition is false, or what it asks
	// for can't be read.
	on, never, sawElse bool
	why                string
	rules              int
}

func newReader() *reader {
	return &reader{
		defs:      make(map[string]*definition),
		scores:    make(map[string]setting),
		describes: make(map[string]string),
		tflags:    make(map[string]string),
		priority:  make(map[string]int),
		hidden:    make(map[string]hiddenRule),
		replaced:  make(map[string]bool),
		grouped:   make(map[string]int),
	}
}

// problem records p at the current line unless it says where it is.
func (r *reader) problem(p Problem) {
	if p.File == "" {
		p.File, p.Line = r.file, r.line
	}
	p.Count = max(p.Count, 1)
	p.File, p.What = printable(p.File, 400), printable(p.What, 300)
	if len(r.problems) >= maxProblems {
		r.dropped++
		return
	}
	r.problems = append(r.problems, p)
}

// group records p, one for each file and key; further ones are counted.
func (r *reader) group(key string, p Problem) {
	key = r.file + "\x00" + key
	if i, ok := r.grouped[key]; ok {
		r.problems[i].Count++
		return
	}
	before := len(r.problems)
	if r.problem(p); len(r.problems) > before {
		r.grouped[key] = before
	}
}

func (r *reader) mistake(rule, why, what, remedy string) {
	r.problem(Problem{Rule: rule, Severity: Mistake, Why: why, What: what, Remedy: remedy})
}

// readFile takes in one file's text.
func (r *reader) readFile(file, text string) {
	r.file, r.line, r.conds = file, 0, nil
	for len(text) > 0 {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		r.line++
		if len(line) > maxLine {
			r.mistake("", "limit", fmt.Sprintf("the line has %d bytes (at most %d)", len(line), maxLine), "split the rule")
			continue
		}
		if line = stripComment(line); line != "" {
			r.readLine(line)
		}
	}
	for _, c := range r.conds {
		r.line = c.line
		r.mistake("", "syntax", "this condition has no endif before the file ends", "add endif")
	}
	r.conds = nil
}

// stripComment takes off what begins with an unescaped '#', and blanks at both
// ends (Conf::Parser).
func stripComment(line string) string {
	for i := 0; i < len(line); i++ {
		if line[i] == '#' && (i == 0 || line[i-1] != '\\') {
			line = line[:i]
			break
		}
	}
	return strings.TrimSpace(strings.ReplaceAll(line, `\#`, `#`))
}

// word parts the first word of s from the rest.
func word(s string) (first, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

func (r *reader) readLine(line string) {
	key, rest := word(line)
	key = strings.ToLower(key)
	switch key {
	case "ifplugin", "if", "else", "endif", "elsif":
		r.conditional(key, rest)
		return
	}
	if n := len(r.conds); n > 0 && !r.conds[n-1].on {
		r.skipLine(key, rest)
		return
	}
	switch key {
	case "header", "mimeheader", "body", "rawbody", "uri", "full", "meta":
		r.define(key, rest)
	case "score":
		r.score(rest)
	case "describe":
		if name, text := word(rest); r.validName(name) {
			r.describes[name] = printable(text, 256)
		}
	case "tflags":
		if name, text := word(rest); r.validName(name) {
			r.tflags[name] = strings.TrimSpace(r.tflags[name] + " " + text)
		}
	case "priority":
		r.setPriority(rest)
	case "test", "lang", "require_version", "reuse":
		// Self-tests of rule files, translations, and hints for mass checks.
	case "include":
		r.mistake("", "syntax", "include is not followed: a .cf file reads no other file", "put the file into one of the folders of scanners.rules.paths")
	default:
		r.other(key, rest)
	}
}

// skipLine notes a rule behind a condition that doesn't hold.
func (r *reader) skipLine(key, rest string) {
	c := &r.conds[len(r.conds)-1]
	switch key {
	case "header", "mimeheader", "body", "rawbody", "uri", "full", "meta", "uridnsbl", "urirhssub", "uridnssub", "urirhsbl", "urinsrhsbl", "urinsrhssub", "urifullnsrhsbl", "urifullnsrhssub", "askdns", "uri_detail":
		c.rules++
		if name, _ := word(rest); name != "" && len(name) <= maxName && len(r.hidden) < maxRules {
			if _, ok := r.hidden[name]; !ok {
				r.hidden[name] = hiddenRule{r.file, r.line, c.why}
			}
		}
	}
}

// define keeps a rule; one of the same name before it is replaced.
func (r *reader) define(directive, rest string) {
	name, text := word(rest)
	if !r.validName(name) {
		return
	}
	if text == "" {
		r.mistake(name, "syntax", "the rule has no "+map[bool]string{true: "expression", false: "pattern"}[directive == "meta"], remedyFix)
		return
	}
	r.keep(name, directive, text)
}

func (r *reader) keep(name, directive, text string) {
	if _, known := r.defs[name]; !known {
		if len(r.defs) >= maxRules {
			r.group("rules", Problem{Severity: Mistake, Why: "limit", What: fmt.Sprintf("more than %d rules: this one and later ones are out", maxRules), Remedy: "load fewer files"})
			return
		}
		r.order = append(r.order, name)
	}
	r.defs[name] = &definition{name: name, directive: directive, text: text, file: r.file, line: r.line}
}

func (r *reader) validName(name string) bool {
	ok := name != "" && len(name) <= maxName && (name[0] < '0' || name[0] > '9')
	for i := 0; ok && i < len(name); i++ {
		ok = isWord(name[i])
	}
	if !ok {
		r.mistake("", "syntax", fmt.Sprintf("%q is not a rule's name", cut(name, 40)), "a name has letters, digits and underscores, at most 128, and begins with no digit")
	}
	return ok
}

func (r *reader) score(rest string) {
	name, text := word(rest)
	if !r.validName(name) {
		return
	}
	values := strings.Fields(text)
	if len(values) != 1 && len(values) != 4 {
		r.mistake(name, "syntax", fmt.Sprintf("a score has one value or four, this one %d", len(values)), "write: score "+name+" 1.5")
		return
	}
	for _, v := range values {
		if _, err := parsePoints(v); err != nil {
			r.mistake(name, "syntax", err.Error(), "write: score "+name+" 1.5")
			return
		}
	}
	r.scores[name] = setting{values, r.file, r.line}
}

func (r *reader) setPriority(rest string) {
	name, text := word(rest)
	if !r.validName(name) {
		return
	}
	var n int
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
		r.mistake(name, "syntax", fmt.Sprintf("%q is not a priority", cut(text, 20)), "a priority is a whole number")
		return
	}
	r.priority[name] = n
}
