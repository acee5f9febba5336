package rules

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/internal/verdict"
)

// Ruleset is a set of rules that can be run. It never changes and is safe for
// concurrent use.
type Ruleset struct {
	rules []*rule
	// byName are the slots of all names that rules or metas mention; a rule's slot
	// is its index in rules, others come behind.
	slots map[string]int
	// facts are rules on our own functions; metas stand in an order in which what
	// they need comes first.
	facts, metas []*rule
	headers      []*headerGroup
	mime         []*headerGroup
	body, raw    *group
	uri, full    *group
	// adjust are the scores that files give to symbols of other scanners.
	adjust map[string]verdict.Score
	cover  Coverage
	memory dfaMemory
}

// rule is one compiled rule.
type rule struct {
	name        string
	slot        int
	kind        kind
	score       verdict.Score
	description string
	// silent rules (names that begin with __) only serve metas.
	silent bool
	// maxHits is how often the rule counts: 1, or more with tflags multiple.
	maxHits   int
	noSubject bool

	re      *pattern
	negated bool
	target  target
	exists  bool
	// unset stands in for an absent field, if hasUnset.
	unset    string
	hasUnset bool
	fact     fact
	meta     expr
	needs    []string // names in the meta
}

// Coverage counts what of the files is run.
type Coverage struct {
	// Rules is the number of rules that run, Visible those of them that can add a
	// score, Disabled those switched off by a score of 0.
	Rules, Visible, Disabled int
	// Skipped is the number of rules that can't be run, by Problem.Why.
	Skipped map[string]int
}

// Coverage says how much of what was loaded runs. The caller owns the map.
func (s *Ruleset) Coverage() Coverage {
	c := s.cover
	c.Skipped = maps.Clone(s.cover.Skipped)
	return c
}

// Info describes one rule for people and tools.
type Info struct {
	Name, Description string
	Score             verdict.Score
	// Silent rules (__…) only serve metas.
	Silent bool
}

// Rules lists all rules that run, by name.
func (s *Ruleset) Rules() []Info {
	out := make([]Info, 0, len(s.rules))
	for _, r := range s.rules {
		out = append(out, Info{r.name, r.description, r.score, r.silent})
	}
	slices.SortFunc(out, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// builder makes a Ruleset of what a reader gathered.
type builder struct {
	*reader
	opts    Options
	set     *Ruleset
	symbols map[string]bool
	off     map[string]bool // by a score of 0
	out     map[string]string
}

func build(r *reader, opts Options) *Ruleset {
	b := &builder{reader: r, opts: opts, off: make(map[string]bool), out: make(map[string]string), symbols: make(map[string]bool),
		set: &Ruleset{slots: make(map[string]int), adjust: make(map[string]verdict.Score), cover: Coverage{Skipped: make(map[string]int)}}}
	for _, s := range opts.Symbols {
		b.symbols[s] = true
	}
	for _, s := range ownSymbols {
		b.symbols[s] = true
	}
	var rules []*rule
	for _, name := range r.order {
		if u := b.compile(r.defs[name]); u != nil {
			rules = append(rules, u)
		}
	}
	rules = b.dropUnmet(rules)
	b.place(rules)
	b.adjustments()
	slices.SortStableFunc(r.problems, func(x, y Problem) int {
		return cmp.Or(strings.Compare(x.File, y.File), x.Line-y.Line, strings.Compare(x.Rule, y.Rule))
	})
	return b.set
}

// scoreOf returns a rule's score in the chosen set.
func (b *builder) scoreOf(name string) verdict.Score {
	if s, ok := b.scores[name]; ok {
		v := s.values[0]
		if len(s.values) == 4 {
			v = s.values[b.opts.ScoreSet]
		}
		n, err := parsePoints(v)
		if err == nil { // checked when it was read
			return n
		}
	}
	n := verdict.Point
	if strings.HasPrefix(name, "T_") {
		n = verdict.Point / 100
	}
	if slices.Contains(strings.Fields(b.tflags[name]), "nice") {
		n = -n
	}
	return n
}

// skip says that a rule is out.
func (b *builder) skip(d *definition, sev Severity, why, what, remedy string) {
	b.out[d.name] = what
	b.set.cover.Skipped[why]++
	b.problem(Problem{File: d.file, Line: d.line, Rule: d.name, Severity: sev, Why: why, What: what, Remedy: remedy})
}

// compile makes a rule of a definition, or nil if it is off or can't be run.
func (b *builder) compile(d *definition) *rule {
	u := &rule{name: d.name, score: b.scoreOf(d.name), description: b.describes[d.name], silent: strings.HasPrefix(d.name, "__"), maxHits: 1}
	if u.score == 0 {
		b.off[d.name] = true
		b.set.cover.Disabled++
		return nil
	}
	if u.description == "" {
		u.description = u.name
	}
	b.flags(u)
	if b.replaced[d.name] {
		b.skip(d, Unsupported, "plugin", "the pattern has tags of the plugin ReplaceTags", remedyLater)
		return nil
	}
	if err := b.parse(u, d); err != nil {
		sev, why, remedy := Mistake, "syntax", remedyFix
		var can *cannot
		switch {
		case errors.As(err, &can):
			sev, why, remedy = Unsupported, can.why, remedyLater
		case errors.Is(err, errUnsupported):
			sev, why, remedy = Unsupported, "regex", remedyLater
			if d.directive == "meta" {
				why = "function"
			}
		}
		b.skip(d, sev, why, strings.TrimSuffix(err.Error(), ": "+errUnsupported.Error()), remedy)
		return nil
	}
	return u
}

// cannot is the error of what SpamAssassin could run and this build can't.
type cannot struct{ why, what string }

func (c *cannot) Error() string { return c.what }

func (b *builder) flags(u *rule) {
	for _, f := range strings.Fields(b.tflags[u.name]) {
		switch {
		case f == "multiple":
			u.maxHits = max(u.maxHits, maxMultiple)
		case f == "nosubject":
			u.noSubject = true
		case strings.HasPrefix(f, "maxhits="):
			if n, err := strconv.Atoi(f[len("maxhits="):]); err == nil && n > 0 {
				u.maxHits = min(n, maxMultiple)
			}
		}
	}
	if !slices.Contains(strings.Fields(b.tflags[u.name]), "multiple") {
		u.maxHits = 1
	}
}

// maxMultiple bounds how often a rule with tflags multiple counts.
const maxMultiple = 1_000

// parse reads a rule's text by its directive.
func (b *builder) parse(u *rule, d *definition) error {
	switch d.directive {
	case "meta":
		u.kind = kindMeta
		return nil // its names are resolved when all rules are known
	case "header", "mimeheader":
		u.kind = kindHeader
		if d.directive == "mimeheader" {
			u.kind = kindMIMEHeader
		}
		return parseHeaderRule(u, d.text)
	case "body":
		u.kind = kindBody
	case "rawbody":
		u.kind = kindRaw
	case "uri":
		u.kind = kindURI
	case "full":
		u.kind = kindFull
	default:
		return &cannot{"plugin", "rules of the directive " + d.directive + " belong to a plugin"}
	}
	if call, ok := strings.CutPrefix(d.text, "eval:"); ok {
		return parseEval(u, call)
	}
	var err error
	u.re, err = compileRegex(d.text)
	return err
}

// parseEval reads a call of a function: only our own are there.
func parseEval(u *rule, call string) error {
	name, _, _ := strings.Cut(call, "(")
	f, ok := facts[strings.TrimSpace(name)]
	if !ok {
		return &cannot{"eval", "needs the function eval:" + cut(name, 60) + "()"}
	}
	u.kind, u.fact = kindFact, f
	return nil
}

// dropUnmet takes out metas that need a rule which is out, and those that need
// each other, until nothing changes.
func (b *builder) dropUnmet(rules []*rule) []*rule {
	for _, u := range rules {
		b.set.slots[u.name] = 0
	}
	rules = slices.DeleteFunc(rules, func(u *rule) bool { return u.kind == kindMeta && !b.names(u) })
	users := make(map[string][]*rule)
	for _, u := range rules {
		for _, n := range u.needs {
			users[n] = append(users[n], u)
		}
	}
	queue := make([]string, 0, len(b.out))
	for n := range b.out {
		queue = append(queue, n)
	}
	for n := range b.hidden {
		if b.defs[n] == nil && !b.symbols[n] && b.scoreOf(n) != 0 {
			queue = append(queue, n)
		}
	}
	slices.Sort(queue) // so that the problems come in one order
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, u := range users[n] {
			if _, gone := b.out[u.name]; gone || b.symbols[n] {
				continue
			}
			b.skip(b.defs[u.name], Unsupported, "dependency", "needs "+n+", which is out", remedyLater)
			queue = append(queue, u.name)
		}
	}
	return slices.DeleteFunc(rules, func(u *rule) bool { _, gone := b.out[u.name]; return gone })
}

// names reads which rules a meta needs; false if it can't be read.
func (b *builder) names(u *rule) bool {
	d := b.defs[u.name]
	_, err := parseMeta(d.text, func(n string) int {
		if !slices.Contains(u.needs, n) {
			u.needs = append(u.needs, n)
		}
		return 0
	})
	switch {
	case errors.Is(err, errUnsupported):
		b.skip(d, Unsupported, "function", strings.TrimSuffix(err.Error(), ": "+errUnsupported.Error()), remedyLater)
		return false
	case err != nil:
		b.skip(d, Mistake, "syntax", err.Error(), remedyFix)
		return false
	}
	return true
}

// place gives each rule its slot and its group.
func (b *builder) place(rules []*rule) {
	s := b.set
	s.slots = make(map[string]int, len(rules))
	rules = b.ordered(rules)
	for i, u := range rules {
		u.slot = i
		s.slots[u.name] = i
		if u.re != nil {
			s.memory.adopt(u.re.dfa)
		}
	}
	s.rules = rules
	var body, raw, uri, full []*rule
	headers, mime := newHeaderGroups(), newHeaderGroups()
	for _, u := range rules {
		s.cover.Rules++
		if !u.silent {
			s.cover.Visible++
		}
		switch u.kind {
		case kindHeader:
			headers.add(u)
		case kindMIMEHeader:
			mime.add(u)
		case kindBody:
			body = append(body, u)
		case kindRaw:
			raw = append(raw, u)
		case kindURI:
			uri = append(uri, u)
		case kindFull:
			full = append(full, u)
		case kindFact:
			s.facts = append(s.facts, u)
		case kindMeta:
			b.link(u)
			s.metas = append(s.metas, u)
		}
	}
	s.headers, s.mime = headers.done(), mime.done()
	s.body, s.raw, s.uri, s.full = newGroup(body), newGroup(raw), newGroup(uri), newGroup(full)
	for _, g := range []*group{s.body, s.raw, s.uri, s.full} {
		g.join(&s.memory)
	}
}

// link compiles a meta for good and notes names that nothing defines.
func (b *builder) link(u *rule) {
	d := b.defs[u.name]
	u.meta, _ = parseMeta(d.text, func(n string) int { // it was read once without error
		i, ok := b.set.slots[n]
		if !ok {
			i = len(b.set.rules) + b.extra()
			b.set.slots[n] = i
		}
		return i
	})
	for _, n := range u.needs {
		if b.defs[n] == nil && !b.symbols[n] {
			b.problem(Problem{File: d.file, Line: d.line, Rule: u.name, Severity: Notice, Why: "undefined",
				What: "no file defines " + n + ": it counts as 0 unless another scanner sets it", Remedy: "check its spelling"})
		}
	}
}

// extra is the number of slots that belong to no rule.
func (b *builder) extra() int { return len(b.set.slots) - len(b.set.rules) }

// ordered puts metas behind what they need; those that need each other are out.
func (b *builder) ordered(rules []*rule) []*rule {
	waits := make(map[string]int)
	users := make(map[string][]*rule)
	meta := make(map[string]bool)
	for _, u := range rules {
		meta[u.name] = u.kind == kindMeta
	}
	var out, ready []*rule
	for _, u := range rules {
		if u.kind != kindMeta {
			out = append(out, u)
			continue
		}
		for _, n := range u.needs {
			if meta[n] {
				waits[u.name]++
				users[n] = append(users[n], u)
			}
		}
		if waits[u.name] == 0 {
			ready = append(ready, u)
		}
	}
	for len(ready) > 0 {
		u := ready[0]
		ready = ready[1:]
		out = append(out, u)
		for _, w := range users[u.name] {
			if waits[w.name]--; waits[w.name] == 0 {
				ready = append(ready, w)
			}
		}
	}
	for _, u := range rules {
		if waits[u.name] > 0 {
			b.skip(b.defs[u.name], Mistake, "dependency", "the expression needs, through others, its own value", "break the circle")
		}
	}
	return out
}

// adjustments keeps the scores of names that no rule has: they are symbols of
// other scanners, if one of them is to set it.
func (b *builder) adjustments() {
	for _, name := range slices.Sorted(maps.Keys(b.scores)) {
		s := b.scores[name]
		if b.defs[name] != nil {
			continue
		}
		n := b.scoreOf(name)
		b.set.adjust[name] = n
		if _, hidden := b.hidden[name]; !hidden && !b.symbols[name] {
			b.problem(Problem{File: s.file, Line: s.line, Rule: name, Severity: Notice, Why: "undefined",
				What: fmt.Sprintf("a score for %s, which no file defines: it counts if another scanner sets it", name), Remedy: "check its spelling"})
		}
	}
}
