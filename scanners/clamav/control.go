package clamav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	baruwa "github.com/baruwa-enterprise/clamd"
)

// maxControl is the most bytes of a reply to a control command.
const maxControl = 64 << 10

// control runs one control command by the named package, which neither ends with
// a context nor bounds what it reads: it speaks to a socket of ours, from where
// it is passed on to clamd until ctx ends or the reply is too long.
func (e *endpoint) control(ctx context.Context, command func(context.Context, *baruwa.Client) (string, error)) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "sluice-clamd-")
	if err != nil {
		return "", fmt.Errorf("clamav: control: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		return "", fmt.Errorf("clamav: control: %w", err)
	}
	var relay sync.WaitGroup
	defer relay.Wait() // after cancel and Close below
	defer cancel()
	defer l.Close()
	var relayed error
	relay.Go(func() { relayed = e.relay(ctx, l) })

	c, err := baruwa.NewClient("unix", path)
	if err != nil {
		return "", fmt.Errorf("clamav: control: %w", err)
	}
	left := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		left = max(time.Until(d), time.Millisecond)
	}
	c.SetConnTimeout(left)
	c.SetCmdTimeout(left + time.Second) // ours comes first
	answer, err := command(ctx, c)
	_ = l.Close() // so that a relay without a client ends
	cancel()
	relay.Wait()
	// One failure is seen on both sides of our socket: what happened at clamd's is the cause,
	// unless the client never came.
	if err == nil || relayed != nil && !errors.Is(relayed, net.ErrClosed) {
		err = relayed
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", e.name, err)
	}
	return answer, nil
}

// relay passes one connection on to clamd.
func (e *endpoint) relay(ctx context.Context, l net.Listener) error {
	near, err := l.Accept()
	if err != nil {
		return err
	}
	defer near.Close()
	far, err := e.dial(ctx)
	if err != nil {
		return err
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = near.SetDeadline(past) // these fail only on closed connections
		_ = far.SetDeadline(past)
	})
	defer stop()
	var b [64]byte
	n, err := near.Read(b[:]) // a control command is one short line, written at once
	if err != nil {
		return err
	}
	if _, err := far.Write(b[:n]); err != nil {
		return err
	}
	copied, err := io.Copy(near, io.LimitReader(far, maxControl))
	switch {
	case err != nil:
		return err
	case copied == maxControl:
		return errors.New("reply is longer than 64 KiB")
	case copied == 0:
		return errors.New("closed without a reply")
	}
	return nil
}

func getVersion(ctx context.Context, c *baruwa.Client) (string, error) { return c.Version(ctx) }

func getStats(ctx context.Context, c *baruwa.Client) (string, error) { return c.Stats(ctx) }

func doPing(ctx context.Context, c *baruwa.Client) (string, error) {
	ok, err := c.Ping(ctx)
	if err == nil && !ok {
		err = errors.New("not a reply to PING")
	}
	return "PONG", err
}

func doReload(ctx context.Context, c *baruwa.Client) (string, error) {
	ok, err := c.Reload(ctx)
	if err == nil && !ok {
		err = errors.New("clamd did not confirm RELOAD")
	}
	return "RELOADING", err
}
