package rules

import (
	"cmp"
	"regexp/syntax"
	"slices"
	"strings"
)

// group holds the rules that look at one kind of text. Rules of which a literal
// is known are run only where the automaton has seen it; the others always, those
// that count once all together.
type group struct {
	rules     []*rule
	automaton *automaton
	// always are the rules without a literal. joined are those of them that joint
	// finds in one pass: the first ones.
	always []*rule
	joined int
	joint  *dfa
}

// newGroup returns nil for no rules.
func newGroup(rules []*rule) *group {
	if len(rules) == 0 {
		return nil
	}
	g := &group{}
	var literals [][]string
	for _, u := range rules {
		if u.re == nil || u.re.literals == nil || u.negated {
			g.always = append(g.always, u)
			continue
		}
		g.rules = append(g.rules, u)
		literals = append(literals, u.re.literals)
	}
	g.automaton = newAutomaton(literals)
	return g
}

// join makes one automaton of the rules without a literal, for a group that looks
// at much text.
func (g *group) join(memory *dfaMemory) {
	if g == nil {
		return
	}
	joins := func(u *rule) bool { return u.maxHits == 1 && !u.re.counts }
	slices.SortStableFunc(g.always, func(a, b *rule) int { return hit(joins(b)) - hit(joins(a)) })
	var progs []*syntax.Prog
	for _, u := range g.always {
		if joins(u) {
			progs = append(progs, u.re.prog)
		}
	}
	if len(progs) > 1 {
		g.joined, g.joint = len(progs), newDFA(progs...)
		memory.adopt(g.joint)
	}
}

// run is the state of one message's evaluation.
type run struct {
	set    *Ruleset
	msg    *message
	clock  *clock
	values []float64
	// turn and seen keep a rule from being a candidate twice for one text.
	turn uint32
	seen []uint32
	// candidates is scratch space.
	candidates []*rule
	cuts       []string // see outcome
}

// open reports whether another hit of u would count.
func (r *run) open(u *rule) bool { return r.values[u.slot] < float64(u.maxHits) }

// texts runs the group over lines: first what the automaton names, so that a
// budget that runs out costs the dear rules and not the telling ones.
func (r *run) texts(g *group, lines []string) {
	if g == nil {
		return
	}
	if g.automaton != nil {
		for i, line := range lines {
			r.prefiltered(g, line, i)
			if r.clock.spent() {
				return
			}
		}
	}
	rest := g.always
	if g.joint != nil && !g.joint.wild.Load() {
		rest = rest[g.joined:]
		for i, line := range lines {
			if r.jointly(g, line, i); r.clock.spent() {
				return
			}
		}
	}
	for _, u := range rest {
		for i, line := range lines {
			if !r.open(u) {
				break
			}
			if r.confirm(u, line, i); r.clock.spent() {
				return
			}
		}
	}
}

// jointly runs the joined rules on one line.
func (r *run) jointly(g *group, line string, index int) {
	g.joint.run(line, r.clock, func(found []int32) bool {
		for _, i := range found {
			if u := g.always[i]; !u.skips(index) {
				r.values[u.slot] = 1
			}
		}
		return true
	})
}

// skips reports whether the rule doesn't look at the line of that index: the
// subject is the first.
func (u *rule) skips(index int) bool { return u.noSubject && index == 0 && u.kind == kindBody }

// prefiltered confirms the rules of which a literal stands in the line.
func (r *run) prefiltered(g *group, line string, index int) {
	r.clock.work(len(line))
	r.turn++
	r.candidates = r.candidates[:0]
	g.automaton.find(line, func(o int32) {
		u := g.rules[o]
		if r.seen[u.slot] != r.turn {
			r.seen[u.slot] = r.turn
			r.candidates = append(r.candidates, u)
		}
	})
	if len(r.candidates) == 0 {
		return
	}
	for _, u := range r.candidates {
		if r.open(u) {
			if r.confirm(u, line, index); r.clock.spent() {
				return
			}
		}
	}
}

// confirm runs a rule's pattern on text.
func (r *run) confirm(u *rule, text string, index int) {
	if u.skips(index) {
		return
	}
	if u.maxHits > 1 {
		left := u.maxHits - int(r.values[u.slot])
		r.values[u.slot] += float64(u.re.count(text, left, r.clock))
		return
	}
	if u.re.match(text, r.clock) {
		r.values[u.slot] = 1
	}
}

// headerGroup holds the rules that look at the same field in the same way.
type headerGroup struct {
	target target
	*group
	all []*rule
}

type headerGroups struct{ by map[target]*headerGroup }

func newHeaderGroups() *headerGroups {
	return &headerGroups{by: make(map[target]*headerGroup)}
}

// pseudo-fields are told by their spelling, others without regard to case.
func (t target) key() target {
	switch t.name {
	case "ALL", "ToCc", "EnvelopeFrom", "MESSAGEID":
	default:
		t.name = strings.ToLower(t.name)
	}
	return t
}

func (h *headerGroups) add(u *rule) {
	k := u.target.key()
	g := h.by[k]
	if g == nil {
		g = &headerGroup{target: u.target}
		h.by[k] = g
	}
	g.all = append(g.all, u)
}

// done builds the groups, in one order.
func (h *headerGroups) done() []*headerGroup {
	out := make([]*headerGroup, 0, len(h.by))
	for _, g := range h.by {
		var patterns []*rule
		for _, u := range g.all {
			if !u.exists {
				patterns = append(patterns, u)
			}
		}
		g.group = newGroup(patterns)
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *headerGroup) int { return cmp.Compare(a.all[0].slot, b.all[0].slot) })
	return out
}

// field runs a group over the value it looks at. An absent field matches as the
// empty text, as in SpamAssassin.
func (r *run) field(g *headerGroup, value string, present bool) {
	if !present {
		for _, u := range g.all {
			if !u.exists && r.open(u) {
				r.fieldRule(u, u.unset)
			}
		}
		return
	}
	for _, u := range g.all {
		if u.exists {
			r.values[u.slot] = 1
		}
	}
	if g.group == nil {
		return
	}
	if g.automaton != nil {
		r.prefiltered(g.group, value, 1)
	}
	if len(g.always) == 0 {
		return
	}
	for _, u := range g.always {
		if r.open(u) {
			r.fieldRule(u, value)
		}
	}
}

func (r *run) fieldRule(u *rule, text string) {
	if r.clock.spent() {
		return
	}
	if u.negated {
		if !u.re.match(text, r.clock) && !r.clock.spent() {
			r.values[u.slot] = 1
		}
		return
	}
	r.confirm(u, text, 1)
}
