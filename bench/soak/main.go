// Command soak feeds mail through a queueing Postfix, a second Postfix and Sluice
// while clamd is killed again and again, and accounts for every message.
//
// Invariants:
//   - Every message is, in the end, in the mailbox, refused by name, or in a
//     queue. One that is nowhere is lost, and fails the run.
//   - No infected message ever reaches the mailbox.
//   - No message that was judged while clamd was away was accepted.
//   - Mail flows again within 15 s of clamd's return.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"sluice/internal/testkit"
)

func main() {
	o := options{}
	flag.StringVar(&o.sluice, "sluice", "build/sluice", "the program to try")
	flag.IntVar(&o.messages, "messages", 10_000, "messages to feed")
	flag.IntVar(&o.kills, "kills", 6, "how often clamd is killed")
	flag.DurationVar(&o.away, "away", 6*time.Second, "how long clamd stays away each time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

type options struct {
	sluice          string
	messages, kills int
	away            time.Duration
}

// recovery bounds the time from clamd's return to the next accepted message.
const recovery = 15 * time.Second

func run(ctx context.Context, o options) (err error) {
	s, err := start(ctx, o.sluice)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(err != nil)) }()

	rate, err := s.findRate(ctx, 400)
	if err != nil {
		return fmt.Errorf("find the rate: %w", err)
	}
	steady := 0.7 * rate
	fmt.Printf("this machine carries %.0f messages/s through both Postfixes, Sluice and clamd; feeding %.0f/s\n", rate, steady)

	fed := make(chan error, 1)
	feeding, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { fed <- s.feed(feeding, o.messages, steady) }()
	outages, err := s.killAgainAndAgain(ctx, o, time.Duration(float64(o.messages)/steady*float64(time.Second)))
	if err != nil {
		cancel()
		return errors.Join(err, <-fed)
	}
	if err := <-fed; err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	if err := s.drain(ctx); err != nil {
		return err
	}
	return s.account(o.messages, outages)
}

// outage is one time that clamd was away.
type outage struct {
	killed, returned time.Time
	// accepted is when the first message went through again.
	accepted time.Time
}

// killAgainAndAgain spreads the kills over the time that feeding takes.
func (s *system) killAgainAndAgain(ctx context.Context, o options, span time.Duration) ([]outage, error) {
	pause := span/time.Duration(o.kills) - o.away
	if pause < 2*time.Second {
		return nil, fmt.Errorf("%d kills of %s don't fit into %s of feeding: ask for more messages", o.kills, o.away, span.Round(time.Second))
	}
	var outages []outage
	for n := range o.kills {
		if err := wait(ctx, pause); err != nil {
			return nil, err
		}
		s.clamd.Kill()
		out := outage{killed: time.Now()}
		if err := wait(ctx, o.away); err != nil {
			return nil, err
		}
		out.returned = time.Now() // before it is started: whoever is judged from here on may be lucky
		if err := s.clamd.Start(); err != nil {
			return nil, err
		}
		back := time.Now()
		before := s.delivered()
		err := testkit.Poll(ctx, nil, func(context.Context) error {
			if s.delivered() > before || time.Since(back) > recovery {
				return nil
			}
			return errors.New("nothing has gone through yet")
		})
		if err != nil {
			return nil, err
		}
		out.accepted = time.Now()
		fmt.Printf("clamd killed (%d of %d), away for %.1f s, mail flowed again %.1f s after its return\n", n+1, o.kills, back.Sub(out.killed).Seconds(), out.accepted.Sub(back).Seconds())
		if s.delivered() == before {
			return nil, fmt.Errorf("no mail flowed within %s of clamd's return", recovery)
		}
		outages = append(outages, out)
	}
	return outages, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
