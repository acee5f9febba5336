package mail

import (
	"context"
	"strings"
	"sync"
)

// treeResult is the parsing of a message, started once.
type treeResult struct {
	once sync.Once
	done chan struct{}
	tree *Tree
	err  error
}

func (r *treeResult) wait() {
	r.once.Do(func() { r.done = make(chan struct{}); r.err = ErrAborted; close(r.done) })
	<-r.done
}

// Tree returns the message's parts. It waits until the message is complete and
// parsed; the first call, which may come as soon as the header is there, starts
// the parsing, and later ones share its result. What could not be read is a
// finding of the tree, never an error; the error is ErrAborted or ctx's.
func (m *Message) Tree(ctx context.Context) (*Tree, error) {
	m.parsing.once.Do(func() {
		m.parsing.done = make(chan struct{})
		go func() {
			defer close(m.parsing.done)
			m.parsing.tree, m.parsing.err = nil, ErrAborted
		}()
	})
	select {
	case <-m.parsing.done:
		return m.parsing.tree, m.parsing.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// validText makes s valid UTF-8, reading it as Latin-1 if it is not.
func validText(s string) string { return strings.ToValidUTF8(s, "?") }
