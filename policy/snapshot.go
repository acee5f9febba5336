package policy

import (
	"sync/atomic"

	"sluice/internal/envelope"
)

// Snapshot is an immutable set of policies. Safe for concurrent use.
type Snapshot struct {
	// Generation numbers the set; it grows with each change.
	Generation int64

	delimiters string
	in, out    set
}

// SnapshotOptions are the settings of a Snapshot.
type SnapshotOptions struct {
	// Delimiters is a set of characters that part a local part from its extension,
	// as Postfix's recipient_delimiter.
	Delimiters string
	Generation int64
}

// maxCached bounds the Effective policies that are kept for each direction.
const maxCached = 1 << 16

// set are the policies of one direction.
type set struct {
	entries []entry
	// byMatch finds an entry by its match, plans among them ("=gold").
	byMatch map[string]int32
	// cache holds what was made of the chain that begins with an entry: that entry
	// decides which ones come after it, so it names the chain. Entry n has its
	// place at n modulo the length; a newcomer takes the place.
	cache    []atomic.Pointer[cached]
	defaults *Effective
}

type entry struct {
	match  string
	policy Policy
	plan   int32 // index of the plan that like names, -1 if none
}

type cached struct {
	entry int32
	*Effective
}

func (t *set) init(d envelope.Direction, n int) {
	t.entries = make([]entry, 0, n)
	t.byMatch = make(map[string]int32, n)
	t.cache = make([]atomic.Pointer[cached], max(1, min(n, maxCached)))
	t.defaults = Defaults()
	t.defaults.Direction = d
}

// add reports whether the match is a new one.
func (t *set) add(match string, p Policy) bool {
	if _, twice := t.byMatch[match]; twice {
		return false
	}
	t.byMatch[match] = int32(len(t.entries))
	t.entries = append(t.entries, entry{match: match, policy: p, plan: -1})
	return true
}

// like links an entry with its plan and reports whether there is that plan.
func (t *set) like(match, plan string) bool {
	p, ok := t.byMatch["="+plan]
	if m, err := ParseMatch(match); ok && err == nil {
		if n, ok := t.byMatch[m]; ok {
			t.entries[n].plan = p
		}
	}
	return ok
}

func (s *Snapshot) of(d envelope.Direction) *set {
	if d == envelope.Outbound {
		return &s.out
	}
	return &s.in
}

// Len returns the number of policies.
func (s *Snapshot) Len() int { return len(s.in.entries) + len(s.out.entries) }

// Inbound returns the policy of a recipient of inbound mail.
func (s *Snapshot) Inbound(rcpt envelope.Address) *Effective { return s.Lookup(envelope.Inbound, rcpt) }

// Outbound returns the policy of originating mail of the given identity (login
// or verified sender, see Identity; the null address if there is none, which gets
// "@.").
func (s *Snapshot) Outbound(identity envelope.Address) *Effective {
	return s.Lookup(envelope.Outbound, identity)
}

// Lookup returns the policy of that direction for an address.
func (s *Snapshot) Lookup(d envelope.Direction, a envelope.Address) *Effective {
	return s.of(d).effective(envelope.Keys(a, s.delimiters))
}

// HasInbound reports whether an inbound policy other than "@." applies to the
// recipient.
func (s *Snapshot) HasInbound(rcpt envelope.Address) bool {
	for _, k := range envelope.Keys(rcpt, s.delimiters) {
		if _, ok := s.in.byMatch[k]; ok && k != Everyone {
			return true
		}
	}
	return false
}

// effective returns what the policies under the keys, the most specific first,
// make together.
func (t *set) effective(keys []string) *Effective {
	for i, k := range keys {
		n, ok := t.byMatch[k]
		if !ok {
			continue
		}
		place := &t.cache[int(n)%len(t.cache)]
		if c := place.Load(); c != nil && c.entry == n {
			return c.Effective
		}
		e := t.build(keys[i:])
		place.Store(&cached{n, e})
		return e
	}
	return t.defaults
}

// build lays the policies under the keys over each other, the most general one
// first.
func (t *set) build(keys []string) *Effective {
	type link struct {
		policy *Policy
		source string
	}
	links := make([]link, 0, 8)
	for _, k := range keys {
		n, ok := t.byMatch[k]
		if !ok {
			continue
		}
		en := &t.entries[n]
		links = append(links, link{&en.policy, en.match})
		if en.plan >= 0 {
			plan := &t.entries[en.plan]
			links = append(links, link{&plan.policy, en.match + " (like " + plan.match + ")"})
		}
	}
	e := *t.defaults
	e.chain = make([]string, len(links))
	for i := len(links) - 1; i >= 0; i-- {
		l := links[i]
		e.chain[i] = l.source
		e.lay(l.policy, l.source)
	}
	return &e
}

// lay puts a policy's fields over those of e.
func (e *Effective) lay(p *Policy, source string) {
	var here uint8
	for f, v := range p.All() {
		if f.at == nil {
			continue
		}
		f.assign(e, v)
		if old := e.origins[f.index]; f.Type.merges() && old > 0 {
			e.origins[f.index] = e.source(source + ", " + e.sources[old-1])
			continue
		}
		if here == 0 {
			here = e.source(source)
		}
		e.origins[f.index] = here
	}
}

// source numbers a place, from 1. A chain has at most 24 policies with a plan
// each, and of three fields merged origins: far fewer than 255.
func (e *Effective) source(s string) uint8 {
	e.sources = append(e.sources, s)
	return uint8(len(e.sources))
}
