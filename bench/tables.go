package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

func median[T cmp.Ordered](values []T) T {
	s := slices.Clone(values)
	slices.Sort(s)
	return s[len(s)/2]
}

func pick[T cmp.Ordered](samples []sample, f func(sample) T) T {
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = f(s)
	}
	return median(values)
}

// rounds runs the load for all peers in turn, again and again.
func (b *bench) rounds(ctx context.Context, peers []*peer, mails [][]byte, concurrency int, reuse bool) (map[string][]sample, error) {
	got := map[string][]sample{}
	for range b.options.rounds {
		for _, p := range peers {
			s, err := b.load(ctx, p, mails, concurrency, reuse)
			if err != nil {
				return nil, err
			}
			got[p.name] = append(got[p.name], s)
		}
	}
	return got, nil
}

// direct is the first table: 5 kB mail from a client that speaks as Postfix does.
func (b *bench) direct(ctx context.Context) error {
	mails := mail(1, b.options.messages, 5000)
	for _, p := range b.peers { // warm up
		if _, err := b.load(ctx, p, mails[:50], 4, false); err != nil {
			return err
		}
	}
	b.printf("\n## 5 kB messages, straight at the milter socket\n\nMedians of %d rounds of %d messages. \"CPU\" is the filter's own, per message; clamd's stands beside it.\n\n", b.options.rounds, len(mails))
	b.printf("| connections | used | peer | msgs/s | CPU ms | clamd ms | reply p50 ms | reply p99 ms |\n|---|---|---|---|---|---|---|---|\n")
	for _, concurrency := range []int{1, 8, 64} {
		for _, reuse := range []bool{false, true} {
			got, err := b.rounds(ctx, b.peers, mails, concurrency, reuse)
			if err != nil {
				return err
			}
			used := "once"
			if reuse {
				used = "again"
			}
			for _, p := range b.peers {
				b.row(fmt.Sprintf("| %d | %s | %s", concurrency, used, p.name), got[p.name])
			}
			if concurrency == 8 {
				b.ratios(used, got)
			}
		}
	}
	b.printf("\nRatios at 8 connections:\n\n")
	for _, line := range b.lines {
		b.printf("- %s\n", line)
	}
	return nil
}

// ratios notes what the figures to reach are about.
func (b *bench) ratios(used string, got map[string][]sample) {
	rate := func(name string) float64 { return pick(got[name], func(s sample) float64 { return s.rate }) }
	own := func(name string) float64 { return pick(got[name], func(s sample) float64 { return s.own }) }
	b.lines = append(b.lines,
		fmt.Sprintf("connections used %s: without scanners %.0f %% of the no-op's messages/s, CPU %+.2f ms against the no-op's", used, 100*rate(barePeer)/rate(noopPeer), own(barePeer)-own(noopPeer)),
		fmt.Sprintf("connections used %s: with clamd %.2f × clamav-milter's messages/s, %.2f ms CPU above clamd; with rules %.2f ms", used, rate(clamdPeer)/rate(clamavPeer), own(clamdPeer), own(rulesPeer)))
}

func (b *bench) row(head string, samples []sample) {
	b.printf("%s | %.0f | %.2f | %.2f | %.2f | %.2f |\n", head,
		pick(samples, func(s sample) float64 { return s.rate }),
		pick(samples, func(s sample) float64 { return s.own }),
		pick(samples, func(s sample) float64 { return s.clamd }),
		pick(samples, func(s sample) float64 { return ms(s.wait(0.5)) }),
		pick(samples, func(s sample) float64 { return ms(s.wait(0.99)) }))
}

// growth shows how cost grows with the size of mail.
func (b *bench) growth(ctx context.Context) error {
	b.printf("\n## Growth with size, one connection a message, two at a time\n\n| size | peer | msgs/s | CPU ms | clamd ms | reply p50 ms | reply p99 ms |\n|---|---|---|---|---|---|---|\n")
	for _, size := range []struct {
		name     string
		bytes, n int
	}{{"5 kB", 5000, 200}, {"1 MB", 1 << 20, 40}, {"25 MB", 25 << 20, 6}} {
		got, err := b.rounds(ctx, b.peers, mail(2, size.n, size.bytes), 2, false)
		if err != nil {
			return err
		}
		for _, p := range b.peers {
			b.row(fmt.Sprintf("| %s | %s", size.name, p.name), got[p.name])
		}
	}
	return nil
}

// slow shows that the wait after the last byte doesn't grow with how slowly a
// message came in.
func (b *bench) slow(ctx context.Context) error {
	b.printf("\n## Last body byte to reply, by how slowly a message of 1 MB came in\n\n| came in within | reply p50 ms |\n|---|---|\n")
	data := mail(3, 1, 1<<20)[0]
	p := b.peer(rulesPeer)
	for _, pause := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond} {
		var waits, total []float64
		for range max(b.options.rounds, 5) {
			started := time.Now()
			w, err := stream(ctx, p, data, pause)
			if err != nil {
				return err
			}
			waits, total = append(waits, ms(w)), append(total, time.Since(started).Seconds())
		}
		b.printf("| %.1f s | %.1f |\n", median(total), median(waits))
	}
	return nil
}
