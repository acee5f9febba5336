package milter

import (
	"bytes"
	"strings"

	gomilter "github.com/emersion/go-milter"
)

// stages are the stages that macros belong to, in the order in which they come.
const stages = "CHMRTLNBE"

// macroStore keeps the macros of a connection by the stage they came with: those of an
// earlier stage stay valid in a later one until their own stage begins anew. The
// zero value is empty.
type macroStore struct {
	// sets are the stages' macros as they came: name, NUL, value, NUL ….
	sets [len(stages)][]byte
	// fresh marks sets that came since the last command: they belong to the next one.
	fresh [len(stages)]bool
}

// set takes the data of a macro frame (the stage's code, then names and values). It
// reports false if they are too long or the frame has no stage. Macros of a stage that is
// not known (UNKNOWN) are dropped.
func (m *macroStore) set(data []byte) bool {
	if len(data) == 0 || len(data) > maxMacros {
		return false
	}
	i := strings.IndexByte(stages, data[0])
	if i < 0 {
		return true
	}
	m.fresh[i] = true
	if !bytes.Equal(m.sets[i], data[1:]) { // Postfix sends them anew with each header field
		m.sets[i] = bytes.Clone(data[1:])
	}
	return true
}

// begin is called at each command. One that opens a stage anew (CONNECT, HELO, MAIL)
// ends what its own stage and the later ones knew, but for the macros that came with it.
func (m *macroStore) begin(code gomilter.Code) {
	switch code {
	case gomilter.CodeConn, gomilter.CodeHelo, gomilter.CodeMail:
		m.drop(code, true)
	case gomilter.CodeRcpt: // each recipient has its own
		if i := strings.IndexByte(stages, byte(code)); !m.fresh[i] {
			m.sets[i] = nil
		}
	}
	m.fresh = [len(stages)]bool{}
}

// endMessage drops all that belongs to one message.
func (m *macroStore) endMessage() { m.drop(gomilter.CodeMail, false) }

// drop forgets the stages from the given one on; with keepFresh not those that came since
// the last command.
func (m *macroStore) drop(from gomilter.Code, keepFresh bool) {
	for i := strings.IndexByte(stages, byte(from)); i < len(stages); i++ {
		if !keepFresh || !m.fresh[i] {
			m.sets[i], m.fresh[i] = nil, false
		}
	}
}

// get returns the value of a macro ("i", "{auth_authen}"), the latest stage winning,
// or "".
func (m *macroStore) get(name string) string {
	for i := len(stages) - 1; i >= 0; i-- {
		value, found := "", false
		for n, v := range macroPairs(m.sets[i]) {
			if n == name {
				value, found = v, true
			}
		}
		if found {
			return value
		}
	}
	return ""
}

// all returns all macros by name, the latest stage winning.
func (m *macroStore) all() map[string]string {
	macros := make(map[string]string, 24)
	for _, set := range m.sets {
		for n, v := range macroPairs(set) {
			macros[n] = v
		}
	}
	return macros
}

// macroPairs goes through names and values. A name of one letter in braces is
// the same as the bare letter; a missing last value is "".
func macroPairs(set []byte) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		for len(set) > 0 {
			var name, value []byte
			name, set, _ = bytes.Cut(set, []byte{0})
			value, set, _ = bytes.Cut(set, []byte{0})
			if len(name) == 3 && name[0] == '{' && name[2] == '}' {
				name = name[1:2]
			}
			if len(name) > 0 && !yield(string(name), string(value)) {
				return
			}
		}
	}
}
