package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"sluice/internal/testkit"
)

// throughPostfix is the second table: the same peers behind a real Postfix, whose
// own cost is then most of it.
func (b *bench) throughPostfix(ctx context.Context) error {
	dir, err := b.subdir("postfix")
	if err != nil {
		return err
	}
	port, err := testkit.FindPort()
	if err != nil {
		return err
	}
	sink := testkit.Loopback(port)
	sinkProcess, err := testkit.StartProcess(ctx, testkit.Command{
		Path: "/usr/sbin/smtp-sink", Args: []string{"-u", "nobody", "-c", sink, "1024"}, Log: filepath.Join(dir, "sink.log"),
		Ready: func(ctx context.Context) error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", sink)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	if err != nil {
		return err
	}
	defer sinkProcess.Stop() // it has nothing to lose
	postfix, err := testkit.RunPostfix(dir, testkit.PostfixOptions{Relay: sink, Settings: map[string]string{"smtpd_client_connection_count_limit": "0"}})
	if err != nil {
		return err
	}
	defer postfix.Stop() // the same

	peers := append([]*peer{nil}, b.peers...)
	rates, own := make([][]float64, len(peers)), make([][]float64, len(peers))
	const messages = 800
	for range b.options.rounds {
		for i, p := range peers {
			rate, cpu, err := b.source(ctx, postfix, p, messages)
			if err != nil {
				return err
			}
			rates[i], own[i] = append(rates[i], rate), append(own[i], cpu)
		}
	}
	b.printf("\n## Through Postfix: 8 clients, 5 kB, one message a connection\n\n| peer | msgs/s | CPU ms of the filter |\n|---|---|---|\n")
	for i, p := range peers {
		name := "no milter"
		if p != nil {
			name = p.name
		}
		b.printf("| %s | %.0f | %.2f |\n", name, median(rates[i]), median(own[i]))
	}
	return nil
}

// source feeds a Postfix that hands its mail to a peer (nil: to none).
func (b *bench) source(ctx context.Context, postfix *testkit.Postfix, p *peer, messages int) (rate, own float64, err error) {
	milters := ""
	if p != nil {
		milters = fmt.Sprintf("{ unix:%s, default_action=tempfail }", p.socket)
	}
	if err := postfix.Set(ctx, map[string]string{"smtpd_milters": milters}); err != nil {
		return 0, 0, err
	}
	if err := postfix.Reload(ctx); err != nil {
		return 0, 0, err
	}
	feed := func(n int) error {
		out, err := exec.CommandContext(ctx, "/usr/sbin/smtp-source", "-s", "8", "-l", "5000", "-m", strconv.Itoa(n),
			"-f", "alice@example.net", "-t", "bob@example.org", postfix.SMTP).CombinedOutput()
		if err != nil {
			return fmt.Errorf("smtp-source: %w: %s", err, out)
		}
		return nil
	}
	if err := feed(40); err != nil { // until the reload has gone round
		return 0, 0, err
	}
	var before, after time.Duration
	if p != nil {
		if before, _, err = b.cpu(p); err != nil {
			return 0, 0, err
		}
	}
	started := time.Now()
	if err := feed(messages); err != nil {
		return 0, 0, err
	}
	took := time.Since(started)
	if p != nil {
		if after, _, err = b.cpu(p); err != nil {
			return 0, 0, err
		}
	}
	return float64(messages) / took.Seconds(), ms(after-before) / float64(messages), nil
}
