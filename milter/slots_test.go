package milter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/policy"
)

// Limits that change are in force for new connections and messages; nobody is thrown out.
func TestSetLimits(t *testing.T) {
	f := start(t, func(o *Options) { o.MaxConnections, o.ReserveConnections = 1, 1 })
	one, two := dial(t, f.addr, postfixOffer), dial(t, f.addr, postfixOffer)
	one.greet()
	one.begin("s@example.net", "r@example.org")
	two.greet()
	refused := func(m *mta) {
		t.Helper()
		if r := m.command('M', "<s@example.net>\x00"); !strings.HasPrefix(r, "y451 4.3.2 Too many connections") {
			t.Errorf("reply %q", r)
		}
	}
	refused(two)

	// Raised: the one in the reserve is served, and one that waits in the backlog comes in.
	late := dialOnly(t, f.addr)
	f.server.SetLimits(Limits{MaxConnections: 3, DrainTimeout: time.Hour})
	if got := f.server.Limits(); got != (Limits{3, time.Hour}) {
		t.Errorf("limits %+v", got)
	}
	two.begin("s@example.net", "r@example.org")
	late.negotiate(postfixOffer)
	late.greet()
	late.begin("s@example.net", "r@example.org")

	// Lowered: messages under way end well, and their connections take further ones.
	f.server.SetLimits(Limits{MaxConnections: 1})
	if got := f.server.Limits(); got != (Limits{1, 30 * time.Second}) {
		t.Errorf("limits %+v, want the default where none is given", got)
	}
	for _, m := range []*mta{one, two, late} {
		m.content(nil, "x\r\n")
		if got := m.end(); got[0] != "a" {
			t.Errorf("message under way: %q", got)
		}
		if got := m.message("s@example.net", "r@example.org"); got != "a" {
			t.Errorf("one more on the same connection: %q", got)
		}
	}
	// The next connection has been waited for since before, and gets 451; a further one
	// waits until enough are gone.
	next := dial(t, f.addr, postfixOffer)
	next.greet()
	refused(next)
	fresh := dialOnly(t, f.addr)
	fresh.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	fresh.write('O', string(appendAnswer(nil, postfixOffer)[5:17]))
	if frame, err := fresh.tryRead(); !isTimeout(err) {
		t.Fatalf("past the lower limit: %q, %v", frame, err)
	}
	for _, m := range []*mta{two, late, next} {
		m.write('Q')
		m.closed()
	}
	fresh.conn.SetDeadline(time.Now().Add(patience))
	if a := fresh.read(); a[0] != 'O' {
		t.Errorf("with room: %q", a)
	}
}

// The time of a drain is the one that is in force when it begins.
func TestDrainTimeoutThatWasChanged(t *testing.T) {
	f := start(t, func(o *Options) { o.DrainTimeout, o.DrainGrace = time.Hour, 50*time.Millisecond })
	m := dial(t, f.addr, postfixOffer)
	m.greet()
	m.begin("s@example.net", "r@example.org")
	m.content(nil, "x\r\n")
	f.server.SetLimits(Limits{DrainTimeout: 50 * time.Millisecond})
	f.stop()
	m.closed() // only arriving, so cut
	f.wait(t)
}

// While limits change, each message is answered, and no connection is closed.
func TestSetLimitsUnderTraffic(t *testing.T) {
	f := start(t, func(o *Options) { o.MaxConnections, o.ReserveConnections = 4, 4 })
	f.onFinish = func(context.Context, *fakeRun) policy.Disposition { return policy.Disposition{} }
	stop := make(chan struct{})
	var changer, senders sync.WaitGroup
	changer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				f.server.SetLimits(Limits{MaxConnections: 1 + n%8, DrainTimeout: time.Duration(1+n) * time.Second})
			}
		}
	})
	errs := make(chan error, 8)
	for range 8 {
		senders.Go(func() {
			for range 25 {
				if err := oneMessage(f.addr); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	senders.Wait()
	close(stop)
	changer.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	eventually(t, "all are gone", func() bool { return f.server.Connections() == 0 && f.server.filtering.Load() == 0 })
	f.server.SetLimits(Limits{MaxConnections: 1})
	last := dial(t, f.addr, postfixOffer)
	last.greet()
	if got := last.message("s@example.net", "r@example.org"); got != "a" {
		t.Errorf("after it all: %q", got)
	}
}

// oneMessage sends a message over a connection of its own. It is answered with accept or, at
// MAIL FROM, with 451.
func oneMessage(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	m := &mta{conn: conn, r: bufio.NewReader(conn)}
	commands := []struct {
		code byte
		data string
	}{
		{'O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x00\x00\x00"}, // every command has its reply
		{'C', "mail.example.net\x004\x09\xc4192.0.2.1\x00"}, {'H', "mail.example.net\x00"},
		{'M', "<s@example.net>\x00"}, {'R', "<r@example.org>\x00"}, {'L', "A\x001\x00"}, {'N', ""}, {'B', "x\r\n"}, {'E', ""},
	}
	for _, c := range commands {
		if _, err := conn.Write(appendFrame(nil, c.code, c.data)); err != nil {
			return fmt.Errorf("%c: %w", c.code, err)
		}
		r, err := m.tryRead()
		switch {
		case err != nil:
			return fmt.Errorf("%c: %w", c.code, err)
		case c.code == 'M' && strings.HasPrefix(r, "y451 4.3.2"):
			return nil
		case c.code == 'E' && r != "a" && r != "c", c.code != 'E' && c.code != 'O' && r != "c":
			return fmt.Errorf("%c: reply %q", c.code, r)
		}
	}
	return nil
}

func TestSlotsEndWithTheContext(t *testing.T) {
	var s slots
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("over"))
	if s.take(ctx) {
		t.Error("a slot of none")
	}
	s.limit(1)
	if !s.take(t.Context()) {
		t.Error("no slot")
	}
}
