package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/internal/testkit"
)

// words make up text that is not the same twice; their choice has no meaning.
var words = strings.Fields(`the a of and to in for on with at by from as that this it we you they meeting report project
monday friday morning afternoon minutes budget plan garden winter summer river bridge letter answer question number
table window station train ticket school library music concert evening dinner bread coffee water paper pencil house`)

// prose returns about n bytes of text.
func prose(r *rand.Rand, n int) string {
	var b strings.Builder
	for column := 0; b.Len() < n; {
		w := words[r.IntN(len(words))]
		b.WriteString(w)
		if column += len(w) + 1; column > 70 {
			b.WriteString("\n")
			column = 0
		} else {
			b.WriteString(" ")
		}
	}
	return b.String()
}

// mail makes messages of about n bytes, every second one with an HTML part beside
// the text, each other than the rest.
func mail(seed uint64, count, n int) [][]byte {
	r := rand.New(rand.NewPCG(seed, 1))
	mails := make([][]byte, count)
	for i := range mails {
		parts := []testkit.Part{testkit.Text(prose(r, max(n-600, 100)))}
		switch {
		case n > 100_000: // large mail has an attachment
			data := make([]byte, n*3/4-3000)
			for j := range data {
				data[j] = byte(r.Uint32())
			}
			parts = []testkit.Part{testkit.Text(prose(r, 1000)), testkit.Attachment("data.bin", data)}
		case i%2 == 1:
			half := max(n/2-500, 100)
			parts = []testkit.Part{testkit.Text(prose(r, half)), testkit.HTML("<html><body><p>" + prose(r, half) + "</p><a href=\"https://www.example.net/\">more</a></body></html>")}
		}
		mails[i] = testkit.WithFields(testkit.Compose(fmt.Sprintf("Note %d", i), parts...),
			"Received: from mail.example.net (mail.example.net [198.51.100.17]) by mx.example.org (Postfix) with ESMTPS id 4Q00001 for <bob@example.org>; Mon, 02 Nov 2026 10:00:01 +0000 (UTC)",
			fmt.Sprintf("Message-ID: <%d.%d@mail.example.net>", seed, i))
	}
	return mails
}

// sample is what one run of a load measured.
type sample struct {
	rate     float64         // messages a second
	own      float64         // ms of CPU a message, the filter
	clamd    float64         // ms of CPU a message, clamd
	waits    []time.Duration // from the last byte to the reply, sorted
	messages int
}

func (s sample) wait(quantile float64) time.Duration {
	if len(s.waits) == 0 {
		return 0
	}
	return s.waits[min(int(quantile*float64(len(s.waits))), len(s.waits)-1)]
}

// load drives a peer with all mails from a number of connections at a time, each
// used once or for all messages.
func (b *bench) load(ctx context.Context, p *peer, mails [][]byte, concurrency int, reuse bool) (sample, error) {
	before, clamdBefore, err := b.cpu(p)
	if err != nil {
		return sample{}, err
	}
	next := make(chan []byte)
	waits := make([][]time.Duration, concurrency)
	errs := make([]error, concurrency)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := time.Now()
	var clients sync.WaitGroup
	for i := range concurrency {
		clients.Go(func() {
			if waits[i], errs[i] = client(ctx, p, next, reuse); errs[i] != nil {
				cancel()
			}
		})
	}
	for _, m := range mails {
		select {
		case next <- m:
		case <-ctx.Done():
		}
	}
	close(next)
	clients.Wait()
	took := time.Since(started)
	if err := errors.Join(errs...); err != nil {
		return sample{}, fmt.Errorf("%s: %w", p.name, err)
	}
	after, clamdAfter, err := b.cpu(p)
	n := float64(len(mails))
	all := slices.Concat(waits...)
	slices.Sort(all)
	return sample{
		rate: n / took.Seconds(), own: ms(after-before) / n, clamd: ms(clamdAfter-clamdBefore) / n,
		waits: all, messages: len(mails),
	}, err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

var clientAddr = netip.MustParseAddr("198.51.100.17")

func milterMail(data []byte, n int) testkit.MilterMail {
	return testkit.MilterMail{
		ClientName: "mail.example.net", ClientAddr: clientAddr, ClientPort: 40000, Helo: "mail.example.net",
		Daemon: "mx.example.org", QueueID: fmt.Sprintf("4Q%06X", n), Sender: "alice@example.net",
		Recipients: []string{"bob@example.org"}, Data: data,
	}
}

// client sends what comes through next.
func client(ctx context.Context, p *peer, next <-chan []byte, reuse bool) ([]time.Duration, error) {
	var waits []time.Duration
	var c *testkit.MilterClient
	for data := range next {
		if c == nil {
			var err error
			if c, err = testkit.DialMilter(ctx, "unix", p.socket, testkit.MilterOptions{}); err != nil {
				return waits, err
			}
		}
		result, err := c.Send(ctx, milterMail(data, len(waits)))
		if err == nil && result.Reply.Code != 'a' && result.Reply.Code != 'c' {
			err = fmt.Errorf("unexpected reply %c %s", result.Reply.Code, result.Reply.Text)
		}
		if err != nil {
			return waits, errors.Join(err, c.Drop())
		}
		waits = append(waits, result.Waited)
		if !reuse {
			if err := c.Close(); err != nil {
				return waits, err
			}
			c = nil
		}
	}
	if c != nil {
		return waits, c.Close()
	}
	return waits, nil
}
