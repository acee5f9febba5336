package main

import (
	"context"
	"errors"
	"time"

	"sluice/internal/testkit"
)

// stream sends one message in small pieces, as an MTA does that hands on what
// comes in, and returns the wait after the last byte.
func stream(ctx context.Context, p *peer, data []byte, pause time.Duration) (time.Duration, error) {
	c, err := testkit.DialMilter(ctx, "unix", p.socket, testkit.MilterOptions{MTA: testkit.SendmailMTA})
	if err != nil {
		return 0, err
	}
	m := milterMail(data, 0)
	m.ChunkBytes, m.ChunkDelay = 32<<10, pause
	result, err := c.Send(ctx, m)
	if err != nil {
		return 0, errors.Join(err, c.Drop())
	}
	return result.Waited, c.Close()
}

// idle opens many connections that say CONNECT and HELO and then nothing.
func (b *bench) idle(ctx context.Context) error {
	const connections = 2000
	p := b.peer(barePeer)
	before, err := memory(p.process.PID(), "VmRSS")
	if err != nil {
		return err
	}
	open := make([]*testkit.MilterClient, 0, connections)
	defer func() {
		for _, c := range open {
			_ = c.Drop() // measured is done
		}
	}()
	data := mail(4, 1, 5000)[0]
	for i := range connections {
		c, err := testkit.DialMilter(ctx, "unix", p.socket, testkit.MilterOptions{})
		if err != nil {
			return err
		}
		open = append(open, c)
		if _, err := c.Send(ctx, milterMail(data, i)); err != nil { // each has carried a message
			return err
		}
	}
	after, err := memory(p.process.PID(), "VmRSS")
	if err != nil {
		return err
	}
	b.printf("\n## Idle connections\n\n%d connections, each of which has carried a message: resident memory %.1f MB before, %.1f MB after, %.1f kB a connection.\n",
		connections, float64(before)/1e6, float64(after)/1e6, float64(after-before)/connections/1e3)
	return nil
}

// memory sends large messages, all at once.
func (b *bench) memory(ctx context.Context) error {
	const messages, size = 32, 25 << 20
	p := b.peer(rulesPeer)
	data := mail(5, 1, size)[0]
	mails := make([][]byte, messages)
	for i := range mails {
		mails[i] = data
	}
	if _, err := b.load(ctx, p, mails, messages, false); err != nil {
		return err
	}
	peak, err := memory(p.process.PID(), "VmHWM")
	if err != nil {
		return err
	}
	b.printf("\n## Memory\n\n%d messages of 25 MB at once, memory_limit %d MiB: the highest resident memory was %.0f MiB.\n", messages, memoryLimit>>20, float64(peak)/(1<<20))
	return nil
}
