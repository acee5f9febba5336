package rules

// automaton is an Aho-Corasick automaton over octets, ASCII letters folded: one
// pass over a text names every owner of a literal that stands in it. Immutable
// once built, so safe for concurrent use.
type automaton struct {
	// class maps an octet to its column; octets in no literal share column 0.
	class [256]uint8
	width int
	// next is the transition table, state*width+column. While the automaton is
	// built it holds states; at the end states times width, inverted (negative) if
	// a literal ends there.
	next []int32
	// owners of the literals that end in a state, those of its suffixes included.
	owners [][]int32
}

// newAutomaton builds the automaton; literals[i] are those of owner i. It
// returns nil if there are none.
func newAutomaton(literals [][]string) *automaton {
	a := &automaton{width: 1}
	for _, set := range literals {
		for _, s := range set {
			for i := range len(s) {
				if c := lower(s[i]); a.class[c] == 0 && a.width < 255 {
					a.class[c] = uint8(a.width)
					a.width++
				}
			}
		}
	}
	if a.width == 1 {
		return nil
	}
	for c := 'A'; c <= 'Z'; c++ {
		a.class[c] = a.class[lower(byte(c))]
	}
	a.grow()
	for owner, set := range literals {
		for _, s := range set {
			a.add(s, int32(owner))
		}
	}
	a.link()
	for i, s := range a.next {
		if a.next[i] = s * int32(a.width); a.owners[s] != nil {
			a.next[i] = ^a.next[i]
		}
	}
	return a
}

func (a *automaton) grow() int32 {
	a.next = append(a.next, make([]int32, a.width)...)
	a.owners = append(a.owners, nil)
	return int32(len(a.owners) - 1)
}

func (a *automaton) add(s string, owner int32) {
	state := int32(0)
	for i := range len(s) {
		at := int(state)*a.width + int(a.class[lower(s[i])])
		if a.next[at] == 0 {
			n := a.grow()
			a.next[at] = n
		}
		state = a.next[at]
	}
	a.owners[state] = append(a.owners[state], owner)
}

// link turns the trie into a complete automaton, breadth first.
func (a *automaton) link() {
	fail := make([]int32, len(a.owners))
	queue := make([]int32, 0, len(a.owners))
	for c := range a.width {
		if s := a.next[c]; s != 0 {
			queue = append(queue, s)
		}
	}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		a.owners[s] = append(a.owners[s], a.owners[fail[s]]...)
		for c := range a.width {
			at := int(s)*a.width + c
			shorter := a.next[int(fail[s])*a.width+c]
			if n := a.next[at]; n != 0 {
				fail[n] = shorter
				queue = append(queue, n)
			} else {
				a.next[at] = shorter
			}
		}
	}
}

// find calls hit for each owner of a literal that ends somewhere in s; the same
// owner may come several times.
func (a *automaton) find(s string, hit func(owner int32)) {
	row := int32(0)
	for i := range len(s) {
		row = a.next[int(row)+int(a.class[s[i]])]
		if row < 0 {
			row = ^row
			for _, o := range a.owners[int(row)/a.width] {
				hit(o)
			}
		}
	}
}
