package rules

import (
	"context"
	"fmt"
	"time"

	"sluice/internal/verdict"
)

// clock tells when a message's budget is used up. It looks at the time after a
// fixed amount of work, so that neither many small texts nor a large one go
// unseen. For one goroutine. A nil clock never runs out.
type clock struct {
	ctx   context.Context
	until time.Time
	done  int // work since the last look
	over  bool
}

// clockWork is the work between two looks at the time, in octets that an
// automaton passes over: about a tenth of a millisecond.
const clockWork = 64 << 10

func newClock(ctx context.Context, budget time.Duration) *clock {
	c := &clock{ctx: ctx, until: time.Now().Add(budget)}
	if d, ok := ctx.Deadline(); ok && d.Before(c.until) {
		c.until = d
	}
	c.look()
	return c
}

func (c *clock) look() {
	c.done = 0
	c.over = c.over || c.ctx.Err() != nil || !time.Now().Before(c.until)
}

// work notes that n octets were passed over, or as much was done, and reports
// whether the budget is used up.
func (c *clock) work(n int) bool {
	if c == nil {
		return false
	}
	if c.done += n; c.done >= clockWork {
		c.look()
	}
	return c.over
}

// spent reports whether the budget is used up.
func (c *clock) spent() bool { return c.over }

// outcome is what a set says about a message.
type outcome struct {
	findings []verdict.Finding
	// partial: the budget ran out before all rules had run.
	partial bool
	// cuts name texts that are longer than what the rules that look there saw.
	cuts []string
}

// evaluate runs all rules over a message.
func (s *Ruleset) evaluate(ctx context.Context, m *message, budget time.Duration) (outcome, error) {
	r := &run{set: s, msg: m, clock: newClock(ctx, budget), values: make([]float64, len(s.slots)), seen: make([]uint32, len(s.rules))}
	if err := r.all(); err != nil {
		return outcome{}, err
	}
	r.clock.look()
	return outcome{findings: r.findings(), partial: r.clock.over, cuts: r.cuts}, nil
}

// all gives every rule its value.
func (r *run) all() error {
	s, m := r.set, r.msg
	r.symbols()
	for _, g := range s.headers {
		value, present, whole := g.target.value(m)
		r.whole(whole, "header field "+g.target.name, maxFieldText)
		r.field(g, value, present)
	}
	for _, g := range s.mime {
		r.partFields(g)
	}
	for _, u := range s.facts {
		if !r.clock.spent() {
			r.values[u.slot] = float64(min(u.fact(m), u.maxHits))
		}
	}
	if s.body != nil {
		r.texts(s.body, m.body())
	}
	if s.uri != nil {
		r.texts(s.uri, m.uris())
	}
	r.texts(s.raw, m.content.Raw)
	if s.full != nil {
		text, err := m.full(maxFull + 1)
		if err != nil {
			return fmt.Errorf("read the message: %w", err)
		}
		r.whole(len(text) <= maxFull, "message", maxFull)
		r.texts(s.full, []string{text[:min(len(text), maxFull)]})
	}
	for _, u := range s.metas {
		r.values[u.slot] = u.meta(r.values)
	}
	return nil
}

// maxCuts bounds how many cuts are named.
const maxCuts = 4

// whole notes a text that rules look at but that was cut.
func (r *run) whole(whole bool, what string, limit int) {
	if !whole && len(r.cuts) < maxCuts {
		r.cuts = append(r.cuts, fmt.Sprintf("the %s after %d KiB", what, limit>>10))
	}
}

// symbols sets the values of what others have found.
func (r *run) symbols() {
	set := func(name string, on bool) {
		if i, ok := r.set.slots[name]; ok && on && i >= len(r.set.rules) {
			r.values[i] = 1
		}
	}
	for name := range r.msg.symbols {
		set(name, true)
	}
	set("__SL_OUTBOUND", r.msg.outbound)
	set("__SL_RELAY", r.msg.relay)
	set("__SL_LOCAL", r.msg.local)
}

// partFields runs a mimeheader group over each part's fields.
func (r *run) partFields(g *headerGroup) {
	if r.msg.moreParts && len(r.cuts) < maxCuts {
		r.cuts = append(r.cuts, fmt.Sprintf("the header fields of parts after the first %d", maxParts))
	}
	for _, p := range r.msg.parts {
		var value string
		var whole bool
		present := p.Header != nil
		if present {
			if g.target.name == "ALL" {
				value, whole = g.target.whole(p.Header)
			} else {
				value, present, whole = g.target.join(p.Header.All(g.target.name))
			}
			r.whole(whole, "header field "+g.target.name+" of a part", maxFieldText)
		}
		r.field(g, value, present)
	}
}

// findings lists what adds to the score.
func (r *run) findings() []verdict.Finding {
	var out []verdict.Finding
	add := func(symbol, description string, score verdict.Score) {
		out = append(out, verdict.Finding{Symbol: symbol, Kind: verdict.KindSpam, Score: score, Description: description, Scanner: Name})
	}
	for _, u := range r.set.rules {
		if !u.silent && r.values[u.slot] != 0 {
			add(u.name, u.description, u.score)
		}
	}
	for name, had := range r.msg.symbols {
		if want, ok := r.set.adjust[name]; ok && want != had {
			add(name, "score set by a rule file", want-had)
		}
	}
	verdict.Sort(out)
	return out
}
