package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"sluice/internal/testkit"
)

// virusMark ends the subject of infected messages, of which there is one in
// infectedEvery.
const (
	virusMark     = "-infected"
	infectedEvery = 20
	feeders       = 4
)

// findRate measures how many messages a second the whole chain carries.
func (s *system) findRate(ctx context.Context, n int) (float64, error) {
	started := time.Now()
	if err := s.send(ctx, "rate", n, func(int) error { return nil }); err != nil {
		return 0, err
	}
	if err := s.drain(ctx); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(started).Seconds(), nil
}

// feed hands n messages to the feeder at a steady rate.
func (s *system) feed(ctx context.Context, n int, perSecond float64) error {
	started := time.Now()
	return s.send(ctx, "soak", n, func(i int) error {
		due := started.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))
		return wait(ctx, max(time.Until(due), 0))
	})
}

func subject(kind string, i int) string {
	id := fmt.Sprintf("%s-%06d", kind, i)
	if kind == "soak" && i%infectedEvery == 0 {
		id += virusMark
	}
	return id
}

func (s *system) send(ctx context.Context, kind string, n int, pace func(int) error) error {
	next := make(chan int)
	var clients sync.WaitGroup
	errs := make([]error, feeders)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range feeders {
		clients.Go(func() {
			if errs[i] = s.client(ctx, kind, next); errs[i] != nil {
				cancel()
			}
		})
	}
	var err error
	for i := 0; i < n && err == nil; i++ {
		if err = pace(i); err == nil {
			select {
			case next <- i:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
	}
	close(next)
	clients.Wait()
	return errors.Join(append(errs, err)...)
}

func (s *system) client(ctx context.Context, kind string, next <-chan int) error {
	c, err := testkit.Dial(ctx, s.feeder.SMTP, testkit.ClientOptions{})
	if err != nil {
		return err
	}
	defer c.Close() // what counts are the replies
	for i := range next {
		id := subject(kind, i)
		text := testkit.Text(strings.Repeat("A line of a message that is like many others.\n", 20) + id + "\n")
		data := testkit.Compose(id, text)
		if strings.HasSuffix(id, virusMark) {
			data = testkit.Compose(id, text, testkit.Attachment("a.com", []byte(testkit.EICAR())))
		}
		result, err := c.Send(ctx, testkit.Mail{Sender: "alice@example.net", Recipients: []string{"bob@example.org"},
			Data: testkit.WithFields(data, "Message-ID: <"+id+"@mail.example.net>")})
		if err != nil {
			return err
		}
		if !result.Final().OK() {
			return fmt.Errorf("the feeder refused %s: %s", id, result.Final())
		}
	}
	return nil
}
