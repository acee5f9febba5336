package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/internal/testkit"
)

// outside is the client that Postfix is told of (XCLIENT): loopback would count as
// one of our own users.
var outside = testkit.ClientOptions{
	Helo:    "mail.example.net",
	XClient: testkit.XClient{Addr: "198.51.100.17", Name: "mail.example.net", Helo: "mail.example.net"},
}

func (s *system) sendAll(ctx context.Context, show *table) error {
	all, err := messages()
	if err != nil {
		return err
	}
	show.head("Mail from outside (198.51.100.17)")
	for _, m := range all {
		if err := s.send(ctx, m, show); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

func (s *system) send(ctx context.Context, m message, show *table) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.mailbox.Reset()
	mail := testkit.Mail{Sender: m.sender, Recipients: m.recipients, Data: m.data, SenderArgs: "BODY=8BITMIME"}
	switch m.sender {
	case "":
		mail.Sender = "alice@example.net"
	case "<>":
		mail.Sender = ""
	}
	results, err := testkit.Send(ctx, s.postfix.SMTP, outside, mail)
	if err != nil {
		return err
	}
	reply := results[0].Final().String()
	var arrived testkit.Delivery
	if len(m.arrives) > 0 && results[0].Final().OK() {
		err = testkit.Poll(ctx, nil, func(context.Context) error {
			if arrived = merge(s.mailbox.Deliveries()); len(arrived.Recipients) < len(m.arrives) {
				return fmt.Errorf("arrived for %v only", arrived.Recipients)
			}
			return nil
		})
	} else {
		err = s.idle(ctx)
		arrived = merge(s.mailbox.Deliveries())
	}
	if err != nil {
		return err
	}
	show.row(m, reply, arrived, m.problems(reply, arrived))
	return nil
}

// idle waits until Postfix has nothing left in its queues, so that "did not
// arrive" is a fact and not impatience.
func (s *system) idle(ctx context.Context) error {
	return testkit.Poll(ctx, nil, func(context.Context) error {
		queued, err := s.postfix.Queued()
		if err != nil {
			return err
		}
		for queue, n := range queued {
			if n > 0 {
				return fmt.Errorf("%d messages in queue %s", n, queue)
			}
		}
		return nil
	})
}

func merge(ds []testkit.Delivery) testkit.Delivery {
	var all testkit.Delivery
	for _, d := range ds {
		recipients := append(all.Recipients, d.Recipients...)
		all = d
		all.Recipients = recipients
	}
	return all
}

func (m message) problems(reply string, arrived testkit.Delivery) []string {
	var wrong []string
	if !strings.HasPrefix(reply, m.reply) {
		wrong = append(wrong, "expected a reply "+m.reply)
	}
	got, want := slices.Sorted(slices.Values(arrived.Recipients)), m.arrives
	if !slices.Equal(got, want) {
		wrong = append(wrong, fmt.Sprintf("expected it at %v", want))
	}
	for name, value := range m.bears {
		if len(want) == 0 {
			break
		}
		if fields := arrived.Fields(name); len(fields) != 1 || !strings.HasPrefix(fields[0], value) {
			wrong = append(wrong, fmt.Sprintf("expected one field %s: %s…, there is %q", name, value, fields))
		}
	}
	for _, text := range m.lacks {
		if strings.Contains(arrived.Header(), text) {
			wrong = append(wrong, fmt.Sprintf("%q stands in the header", strings.TrimSpace(text)))
		}
	}
	if len(want) > 0 {
		if _, body, _ := bytes.Cut(m.data, []byte("\r\n\r\n")); !bytes.Equal(body, arrived.Body()) {
			wrong = append(wrong, "the body did not arrive byte for byte")
		}
	}
	return wrong
}

// withoutClamd stops clamd, shows that nothing passes, and lets it come back.
func (s *system) withoutClamd(ctx context.Context, show *table) error {
	m := message{name: "clean, while clamd is away", recipients: []string{bob},
		data: compose("away", "Lunch on Friday?", testkit.Text("Shall we meet at noon?\n")), reply: "451 4.7.1"}
	if err := s.clamd.Stop(); err != nil {
		return err
	}
	show.head("clamd is stopped: nobody looks for viruses, so nothing passes")
	if err := s.send(ctx, m, show); err != nil {
		return err
	}
	if err := s.clamd.Start(); err != nil {
		return err
	}
	show.head("clamd is back: the sender's server comes again")
	if err := s.untilHealthy(ctx); err != nil {
		return err
	}
	m.name, m.reply, m.arrives, m.bears = "the same again", "250", []string{bob}, clean
	return s.send(ctx, m, show)
}

// untilHealthy waits until the daemon has seen that its scanners are up.
func (s *system) untilHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := testkit.Poll(ctx, nil, func(ctx context.Context) error {
		text, err := s.get(ctx, "/metrics")
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "sluice_scanner_up{") && strings.HasSuffix(line, " 0\n") {
				return fmt.Errorf("still down: %s", strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("clamd was not seen to be back within %s: %w", patience, err)
	}
	return nil
}
