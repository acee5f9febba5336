package rules

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"sync"
	"sync/atomic"
	"unicode"
)

// dfa finds patterns in octets in one pass, a table look-up an octet, whatever
// the patterns are: its states are sets of places in them, made when a text first
// leads there, and kept. It answers whether, not where. Texts that lead to new
// states without end cost more an octet, but a bounded amount: time stays linear
// in the text, and what is kept is thrown away when it has grown too large.
//
// Safe for concurrent use: states never change but for their transitions, which
// are set atomically.
type dfa struct {
	progs  []*syntax.Prog
	memory *dfaMemory // nil: bounded by maxStateBytes only
	once   sync.Once
	cache  atomic.Pointer[stateCache]
	// passed are the octets seen since the states were last thrown away; wild is
	// set when they were too few: the states of one text don't serve the next.
	passed atomic.Int64
	wild   atomic.Bool

	// What follows is made by prepare.
	nodes []node
	// starts are where a match may begin: at the text's start, and elsewhere.
	begins, starts []uint32
	// class maps an octet to its column: octets that no pattern tells apart share
	// one. The column behind the last is the end of the text.
	class [256]uint8
	reps  []byte // an octet of each class
	// lines and words say whether it matters what stands before a place.
	lines, words bool
}

// node is an instruction of a pattern.
type node struct {
	op       syntax.InstOp
	out, arg uint32
	on       *[4]uint64 // classes that an InstRune takes, a bit each
}

// state is a set of places in the patterns. Immutable but for next.
type state struct {
	places []uint32 // rune and assertion nodes, sorted
	before rune     // what stands before: -1 at the text's start, '\n', 'a' or ' '
	hits   []int32  // patterns that were found on the way here
	// special: there are hits, or nothing more can be found from here.
	special bool
	next    []atomic.Pointer[state]
}

// Bounds of the states that are kept: of one dfa, and of all of a set.
const (
	maxStateBytes = 1 << 20
	maxAllStates  = 64 << 20
)

// minReuse is how many octets a state has to serve, or joining patterns doesn't
// pay.
const minReuse = 50

// dfaMemory bounds what the automata of a set keep together.
type dfaMemory struct {
	all  []*dfa // not changed once the set is built
	used atomic.Int64
}

// adopt adds an automaton, while a set is built.
func (m *dfaMemory) adopt(d *dfa) {
	d.memory = m
	m.all = append(m.all, d)
}

// add notes n bytes more. Past the bound every automaton begins anew; runs in
// flight end with the states they have.
func (m *dfaMemory) add(n int) {
	if m == nil || m.used.Add(int64(n)) <= maxAllStates {
		return
	}
	m.used.Store(0)
	for _, d := range m.all {
		d.cache.Store(nil)
	}
}

// stateCache holds the states made so far.
type stateCache struct {
	start *state
	mu    sync.Mutex // guards what follows
	by    map[string]*state
	bytes int
	// Scratch space: marks of nodes seen in this turn, and lists.
	turn        uint32
	seen, added []uint32
	stack       []uint32
	places      []uint32
	hits        []int32
	key         []byte
}

// newDFA makes an automaton of compiled patterns; hits are named by their index.
// Most of the work waits for its first text.
func newDFA(progs ...*syntax.Prog) *dfa { return &dfa{progs: progs} }

// prepare joins the patterns and finds the classes of octets.
func (d *dfa) prepare() {
	total := 0
	for _, p := range d.progs {
		total += len(p.Inst)
	}
	d.nodes = make([]node, 0, total)
	sets := make(map[[4]uint64]*[4]uint64)
	onOf := make([]*[4]uint64, 0, total) // octets that a node takes
	for i, p := range d.progs {
		base := uint32(len(d.nodes))
		for j := range p.Inst {
			in := &p.Inst[j]
			n := node{op: in.Op, out: in.Out + base, arg: in.Arg}
			var on *[4]uint64
			switch in.Op {
			case syntax.InstAlt, syntax.InstAltMatch:
				n.op, n.arg = syntax.InstAlt, in.Arg+base
			case syntax.InstCapture:
				n.op = syntax.InstNop
			case syntax.InstMatch:
				n.arg = uint32(i)
			case syntax.InstEmptyWidth:
				e := syntax.EmptyOp(in.Arg)
				d.lines = d.lines || e&(syntax.EmptyBeginLine|syntax.EmptyEndLine) != 0
				d.words = d.words || e&(syntax.EmptyWordBoundary|syntax.EmptyNoWordBoundary) != 0
			case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
				n.op = syntax.InstRune
				set := octetsOf(in)
				if on = sets[set]; on == nil {
					on = &set
					sets[set] = on
				}
			}
			d.nodes = append(d.nodes, n)
			onOf = append(onOf, on)
		}
		d.begins = append(d.begins, uint32(p.Start)+base)
		if p.StartCond()&syntax.EmptyBeginText == 0 {
			d.starts = append(d.starts, uint32(p.Start)+base)
		}
	}
	d.classify(sets)
	for set, on := range sets {
		*on = [4]uint64{}
		for k, c := range d.reps {
			if set[c>>6]>>(c&63)&1 != 0 {
				on[k>>6] |= 1 << (k & 63)
			}
		}
	}
	for i := range d.nodes {
		d.nodes[i].on = onOf[i]
	}
	d.progs = nil
}

// octetsOf returns the octets that a rune instruction takes, a bit each.
func octetsOf(in *syntax.Inst) (set [4]uint64) {
	add := func(lo, hi rune) {
		for r := lo; r <= min(hi, maxOctet); r++ {
			set[r>>6] |= 1 << (r & 63)
		}
	}
	switch {
	case in.Op == syntax.InstRuneAny:
		add(0, maxOctet)
	case in.Op == syntax.InstRuneAnyNotNL:
		add(0, '\n'-1)
		add('\n'+1, maxOctet)
	case len(in.Rune) == 1:
		r := in.Rune[0]
		add(r, r)
		if in.Op == syntax.InstRune && syntax.Flags(in.Arg)&syntax.FoldCase != 0 {
			for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
				add(f, f)
			}
		}
	default:
		for i := 0; i+1 < len(in.Rune); i += 2 {
			add(in.Rune[i], in.Rune[i+1])
		}
	}
	return set
}

// classify puts octets into one class that are in the same sets.
func (d *dfa) classify(sets map[[4]uint64]*[4]uint64) {
	type part struct {
		class uint8
		in    bool
	}
	count := 1
	split := func(in func(c byte) bool) {
		parts := make(map[part]uint8)
		next := 0
		for c := range 256 {
			p := part{d.class[c], in(byte(c))}
			k, ok := parts[p]
			if !ok {
				k = uint8(next)
				parts[p] = k
				next++
			}
			d.class[c] = k
		}
		count = next
	}
	for set := range sets {
		split(func(c byte) bool { return set[c>>6]>>(c&63)&1 != 0 })
	}
	if d.words {
		split(isWord)
	}
	if d.lines {
		split(func(c byte) bool { return c == '\n' })
	}
	d.reps = make([]byte, count)
	for c := 255; c >= 0; c-- {
		d.reps[d.class[c]] = byte(c)
	}
}

// found reports whether any of the patterns is in the text. It is false if the
// clock ran out before that was known.
func (d *dfa) found(text string, c *clock) bool {
	found := false
	d.run(text, c, func([]int32) bool { found = true; return false })
	return found
}

// run passes over the text and calls hit with the patterns that end at a place,
// the same ones again and again, until it returns false or the clock runs out.
func (d *dfa) run(text string, c *clock, hit func([]int32) bool) {
	d.once.Do(d.prepare)
	cache := d.current()
	s := cache.start
	if s.special && d.ends(s, hit) {
		return
	}
	d.passed.Add(int64(len(text)))
	for text != "" {
		chunk := text[:min(len(text), clockWork)]
		text = text[len(chunk):]
		for i := range len(chunk) {
			k := d.class[chunk[i]]
			n := s.next[k].Load()
			if n == nil {
				if cache, n = d.step(cache, s, int(k)); c.work(stepWork + len(s.places)) {
					return
				}
			}
			s = n
			if s.special && d.ends(s, hit) {
				return
			}
		}
		if c.work(len(chunk)) {
			return
		}
	}
	end := len(d.reps)
	n := s.next[end].Load()
	if n == nil {
		_, n = d.step(cache, s, end)
	}
	if n.hits != nil {
		hit(n.hits)
	}
}

// stepWork is what a new state costs the clock, in octets.
const stepWork = 200

// ends handles a special state; true ends the run.
func (d *dfa) ends(s *state, hit func([]int32) bool) bool {
	if s.hits != nil && !hit(s.hits) {
		return true
	}
	return len(s.places) == 0 && len(d.starts) == 0
}

// current returns the cache in use.
func (d *dfa) current() *stateCache {
	for {
		if c := d.cache.Load(); c != nil {
			return c
		}
		c := &stateCache{by: make(map[string]*state), seen: make([]uint32, len(d.nodes)), added: make([]uint32, len(d.nodes))}
		c.turn++
		for _, pc := range d.begins {
			d.add(c, pc)
		}
		c.start = d.intern(c, -1)
		n := c.bytes + 8*len(d.nodes) // before others have it
		if d.cache.CompareAndSwap(nil, c) {
			d.memory.add(n)
		}
	}
}

// step makes the transition of a state by a class. It returns the cache to go on
// with.
func (d *dfa) step(c *stateCache, s *state, class int) (*stateCache, *state) {
	c.mu.Lock()
	if c.bytes > maxStateBytes {
		if d.passed.Swap(0) < int64(minReuse*len(c.by)) {
			d.wild.Store(true)
		}
		c.mu.Unlock()
		d.cache.CompareAndSwap(c, nil)
		c = d.current()
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	before := c.bytes
	c.turn++
	c.places, c.hits = c.places[:0], c.hits[:0]
	after := rune(-1)
	if class < len(d.reps) {
		after = rune(d.reps[class])
	}
	now := syntax.EmptyOpContext(s.before, after)
	for _, pc := range s.places {
		d.advance(c, pc, class, now)
	}
	if after >= 0 {
		for _, pc := range d.starts {
			d.add(c, pc)
		}
	}
	n := d.intern(c, d.kindOf(after))
	s.next[class].Store(n)
	d.memory.add(c.bytes - before)
	return c, n
}

// kindOf returns what of an octet matters to what stands behind it.
func (d *dfa) kindOf(r rune) rune {
	switch {
	case d.words && r >= 0 && isWord(byte(r)):
		return 'a'
	case d.lines && r == '\n':
		return '\n'
	}
	return ' '
}

// advance goes from a place over one octet, or over the end of the text, with the
// assertions that hold before it.
func (d *dfa) advance(c *stateCache, pc uint32, class int, now syntax.EmptyOp) {
	c.stack = append(c.stack[:0], pc)
	for len(c.stack) > 0 {
		pc = c.stack[len(c.stack)-1]
		c.stack = c.stack[:len(c.stack)-1]
		if c.seen[pc] == c.turn {
			continue
		}
		c.seen[pc] = c.turn
		switch n := &d.nodes[pc]; n.op {
		case syntax.InstRune:
			if class < len(d.reps) && n.on[class>>6]>>(class&63)&1 != 0 {
				top := len(c.stack)
				d.add(c, n.out)
				c.stack = c.stack[:top]
			}
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(n.arg)&^now == 0 {
				c.stack = append(c.stack, n.out)
			}
		case syntax.InstAlt:
			c.stack = append(c.stack, n.out, n.arg)
		case syntax.InstNop:
			c.stack = append(c.stack, n.out)
		case syntax.InstMatch:
			c.hit(int32(n.arg))
		}
	}
}

func (c *stateCache) hit(pattern int32) {
	if !slices.Contains(c.hits, pattern) {
		c.hits = append(c.hits, pattern)
	}
}

// add puts a node, and what follows it without an octet or an assertion, into the
// state that is being made. It uses the stack above what is on it.
func (d *dfa) add(c *stateCache, pc uint32) {
	bottom := len(c.stack)
	c.stack = append(c.stack, pc)
	for len(c.stack) > bottom {
		pc = c.stack[len(c.stack)-1]
		c.stack = c.stack[:len(c.stack)-1]
		if c.added[pc] == c.turn {
			continue
		}
		c.added[pc] = c.turn
		switch n := &d.nodes[pc]; n.op {
		case syntax.InstRune, syntax.InstEmptyWidth:
			c.places = append(c.places, pc)
		case syntax.InstAlt:
			c.stack = append(c.stack, n.out, n.arg)
		case syntax.InstNop:
			c.stack = append(c.stack, n.out)
		case syntax.InstMatch:
			c.hit(int32(n.arg))
		}
	}
}

// intern returns the state of the gathered places and hits.
func (d *dfa) intern(c *stateCache, before rune) *state {
	slices.Sort(c.places)
	slices.Sort(c.hits)
	c.key = append(c.key[:0], byte(before+1))
	c.key = binary.AppendUvarint(c.key, uint64(len(c.places)))
	last := uint32(0)
	for _, pc := range c.places {
		c.key = binary.AppendUvarint(c.key, uint64(pc-last))
		last = pc
	}
	for _, h := range c.hits {
		c.key = binary.AppendUvarint(c.key, uint64(h))
	}
	if s := c.by[string(c.key)]; s != nil {
		return s
	}
	s := &state{places: slices.Clone(c.places), before: before, next: make([]atomic.Pointer[state], len(d.reps)+1)}
	if len(c.hits) > 0 {
		s.hits = slices.Clone(c.hits)
	}
	s.special = s.hits != nil || len(s.places) == 0 && len(d.starts) == 0
	c.by[string(c.key)] = s
	c.bytes += 160 + 8*len(s.next) + 4*len(s.places) + 4*len(s.hits) + len(c.key)
	return s
}
