package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/config"
	"sluice/internal/envelope"
	"sluice/internal/gateway"
	"sluice/internal/mail"
	"sluice/internal/verdict"
)

// scanFlags are the flags of `sluice scan`.
type scanFlags struct {
	json, explain, exitCode bool
	sender, client          string
	helo, auth              string
	rcpts                   []string
	senderGiven             bool
}

func (a *app) newScan() *cobra.Command {
	var f scanFlags
	c := &cobra.Command{
		Use:   "scan FILE|DIR|MBOX|-...",
		Short: "Judge messages without an MTA",
		Long: `Judge messages as the daemon would, with the same configuration, scanners and
policies, and print what would become of them. Nothing is sent, kept or changed,
and no daemon is needed. A folder is gone through, a Maildir and an mbox file
message by message; - is standard input.

The mail is judged as inbound unless --auth names a login. Without --rcpt the
policy for everyone ("@.") decides; without --sender the Return-Path is taken, if
there is one. No Received line is added unless --client says who sent it.

Exit codes: 0 all were judged, 65 something is not a message, 66 a file is not
there, 74 one can't be read; with --exit-code 1 if anything is not clean, 75 if
a scanner gave no answer.

What to do next: --explain tells why; sluice policy explain ADDR which policy
decided.`,
		Example: "  sluice scan --explain --rcpt kim@example.org message.eml\n  sluice scan --json ~/Maildir/.Junk | jq .score",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.senderGiven = cmd.Flags().Changed("sender")
			return a.scan(cmd.Context(), f, args)
		},
	}
	c.Flags().BoolVar(&f.json, "json", false, "one JSON object a message, a line each")
	c.Flags().BoolVar(&f.explain, "explain", false, "tell in plain words what was found and why")
	c.Flags().BoolVar(&f.exitCode, "exit-code", false, "exit 1 if anything is not clean, 75 if something could not be judged")
	c.Flags().StringVar(&f.sender, "sender", "", "envelope sender `address`; \"\" is the null sender")
	c.Flags().StringArrayVar(&f.rcpts, "rcpt", nil, "recipient `address`; may stand several times")
	c.Flags().StringVar(&f.client, "client", "", "client `IP` address; adds the Received line that the MTA would")
	c.Flags().StringVar(&f.helo, "helo", "", "the `name` that the client gave")
	c.Flags().StringVar(&f.auth, "auth", "", "the `login` of the client; makes it outbound mail")
	c.PreRunE = func(cmd *cobra.Command, _ []string) error { return exclusive(cmd, "json", "explain") }
	return c
}

// scanner judges messages for `sluice scan`.
type scanner struct {
	flags scanFlags
	gw    *gateway.Gateway
	spool *mail.Spool
	env   envelope.Envelope // what all messages share
	out   io.Writer
	err   io.Writer
}

// outcome is what became of one message.
type outcome struct {
	name string
	exam *gateway.Examination
	took time.Duration
	err  error
	code int // if err is not nil
}

func (a *app) scan(ctx context.Context, f scanFlags, args []string) (err error) {
	env, err := f.envelope()
	if err != nil {
		return err
	}
	cfg, err := a.loadGood()
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if a.verbose {
		log = slog.New(slog.NewTextHandler(a.err, nil))
	}
	p, err := a.assembleForScan(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = joinErrors(err, p.pool.Close()) }()
	dir, err := os.MkdirTemp("", "sluice-scan-")
	if err != nil {
		return &exitError{codeOf(err, exitIO), err}
	}
	defer func() { err = joinErrors(err, os.RemoveAll(dir)) }()
	spool, err := mail.NewSpool(mail.SpoolOptions{
		Dir: dir, MemoryLimit: int64(cfg.Milter.MemoryLimit), MaxBytes: int64(cfg.Spool.MaxBytes), MaxMessage: int64(cfg.Milter.MaxMessageSize),
	})
	if err != nil {
		return &exitError{codeOf(err, exitIO), err}
	}
	defer func() { err = joinErrors(err, spool.Close()) }()
	settings := p.settings(nil)
	// Only --auth makes it our own users' mail.
	settings.Origin.Daemons, settings.Origin.Networks = nil, nil
	gw, err := gateway.New(gateway.Options{Spool: spool, Log: log}, settings)
	if err != nil {
		return fail(exitInternal, "%w", err)
	}
	env.Host = cfg.Milter.AuthservID
	s := &scanner{flags: f, gw: gw, spool: spool, env: env, out: a.out, err: a.err}
	return s.run(ctx, sources(args, a.in))
}

// assembleForScan assembles for judging alone: a policy may name actions that this
// build's daemon can't carry out, because nothing is carried out. They are told.
func (a *app) assembleForScan(cfg *config.Loaded, log *slog.Logger) (*parts, error) {
	w := wiring{log: log, generation: 1, judgeOnly: true}
	p, err := assemble(cfg, w)
	if err != nil {
		return nil, err
	}
	if problems := strictPolicyProblems(cfg); len(problems) > 0 {
		fmt.Fprintf(a.err, "sluice: the daemon would not start with these policies:\n%s\n", problems.Error())
	}
	return p, nil
}

// envelope makes what the flags say of a message's envelope.
func (f *scanFlags) envelope() (envelope.Envelope, error) {
	env := envelope.Envelope{Login: f.auth, Received: time.Now(), HandsOverAtOnce: true, SessionID: "scan"}
	env.Client.Helo, env.Client.Name = f.helo, "unknown"
	if f.client != "" {
		ip, err := netip.ParseAddr(strings.Trim(strings.TrimPrefix(f.client, "IPv6:"), "[]"))
		if err != nil {
			return env, fail(exitUsage, "--client %q is not an IP address", f.client)
		}
		env.Client.Addr, env.Client.Port = ip.Unmap(), 25
	}
	address := func(flag, s string) (envelope.Address, error) {
		s = strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
		if s == "" {
			return envelope.Address{}, nil
		}
		addr, err := envelope.ParseStrict(s)
		if err != nil {
			return addr, fail(exitUsage, "%s: %w", flag, err)
		}
		return addr, nil
	}
	var err error
	if env.Sender.Address, err = address("--sender", f.sender); err != nil {
		return env, err
	}
	for _, r := range f.rcpts {
		addr, err := address("--rcpt", r)
		if err != nil {
			return env, err
		}
		if addr.IsNull() {
			return env, fail(exitUsage, "--rcpt is empty")
		}
		env.Recipients = append(env.Recipients, envelope.Recipient{Address: addr})
	}
	return env, nil
}

// run judges all messages, several at once, and prints the results in the order
// of the sources.
func (s *scanner) run(ctx context.Context, all []source) error {
	ctx, cancel := context.WithCancel(ctx)
	pending := make(chan chan outcome, runtime.GOMAXPROCS(0))
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(pending)
		for _, src := range all {
			if !s.read(ctx, src, pending) {
				return
			}
		}
	}()
	defer func() {
		cancel()
		for o := range pending { // after an error of ours: let all end
			<-o
		}
		<-done
	}()
	code, worst := exitOK, verdict.ClassClean
	for ch := range pending {
		o := <-ch
		if err := s.print(o); err != nil {
			return &exitError{exitIO, err}
		}
		if o.err != nil && code == exitOK {
			code = o.code
		}
		if o.exam != nil {
			worst = graver(worst, o.exam.Worst().Class)
		}
	}
	if code != exitOK {
		return told(code)
	}
	if s.flags.exitCode {
		switch worst {
		case verdict.ClassClean:
		case verdict.ClassFailed:
			return told(exitTryAgain)
		default:
			return told(exitSpam)
		}
	}
	return nil
}

// graver chooses what --exit-code tells: anything but clean, failed before all.
func graver(a, b verdict.Class) verdict.Class {
	if a == verdict.ClassFailed || b == verdict.ClassClean {
		return a
	}
	return b
}

// read takes the messages of a source and has them judged; false: stop.
func (s *scanner) read(ctx context.Context, src source, pending chan<- chan outcome) bool {
	submit := func(judge func() outcome) bool {
		ch := make(chan outcome, 1)
		select {
		case pending <- ch:
		case <-ctx.Done():
			return false
		}
		go func() { ch <- judge() }()
		return true
	}
	failed := func(name string, err error) bool {
		return submit(func() outcome { return outcome{name: name, err: err, code: readCode(err)} })
	}
	if src.err != nil {
		return failed(src.name, src.err)
	}
	r, err := src.open()
	if err != nil {
		return failed(src.name, err)
	}
	defer r.Close() // only read from
	messages := split(r)
	for n := 1; ; n++ {
		body, more := messages.next()
		if !more {
			return true
		}
		msg := s.spool.New()
		_, err := msg.ReadFrom(s.withReceived(body))
		name := messages.name(src.name, n)
		if err == nil && (msg.Header() == nil || len(msg.Header().Fields) == 0) {
			err = errNotMessage
		}
		if err != nil {
			err = errors.Join(err, msg.Close())
			if !failed(name, err) {
				return false
			}
			continue
		}
		if !submit(func() outcome { return s.judge(ctx, name, msg) }) {
			_ = msg.Close() // nothing was written to it that anybody misses
			return false
		}
	}
}

// judge examines one message and closes it.
func (s *scanner) judge(ctx context.Context, name string, msg *mail.Message) outcome {
	defer func() { _ = msg.Close() }() // read-only by now
	env := s.env
	if h := msg.Header(); h != nil && !s.flags.senderGiven {
		env.Sender.Address = envelope.Parse(h.Get("Return-Path"))
	}
	began := time.Now()
	exam, err := s.gw.Examine(ctx, &env, msg)
	return outcome{name: name, exam: exam, took: time.Since(began), err: err, code: exitData}
}

// readCode is the exit code for a message that could not be read.
func readCode(err error) int {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return exitNoInput
	case errors.Is(err, mail.ErrTooLarge), errors.Is(err, errNotMessage):
		return exitData
	}
	return codeOf(err, exitIO)
}

func (s *scanner) print(o outcome) error {
	if o.err != nil {
		fmt.Fprintf(s.err, "sluice: %s: %s\n", o.name, trimPath(o.err))
	}
	switch {
	case s.flags.json && o.err != nil:
		return gateway.FailedReport(o.name, o.err, o.took).WriteLine(s.out)
	case s.flags.json:
		return o.exam.Report(o.name, o.took).WriteLine(s.out)
	case o.err != nil:
		return nil
	case s.flags.explain:
		if _, err := fmt.Fprintf(s.out, "%s:\n", o.name); err != nil {
			return err
		}
		return o.exam.Explain(s.out)
	}
	w := o.exam.Worst()
	var symbols []string
	for _, f := range o.exam.Verdict.Findings {
		symbols = append(symbols, f.Symbol)
	}
	line := fmt.Sprintf("%s: %s, score %s, %s", o.name, w.Class, w.Score, o.exam.Action())
	if len(symbols) > 0 {
		line += ": " + strings.Join(symbols, " ")
	}
	_, err := fmt.Fprintln(s.out, line)
	return err
}

// trimPath takes the file's name out of an error, because it stands before it.
func trimPath(err error) string {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// withReceived puts the Received line before a message that the MTA would, if the client is
// known (RFC 5321 §4.4).
func (s *scanner) withReceived(r io.Reader) io.Reader {
	if s.flags.client == "" {
		return r
	}
	head, rest := peekLine(r)
	eol := "\r\n"
	if !strings.HasSuffix(head, "\r\n") {
		eol = "\n"
	}
	helo, with, by := s.env.Client.Helo, "ESMTP", s.env.Host
	ip := s.env.Client.Addr.String()
	if s.env.Client.Addr.Is6() {
		ip = "IPv6:" + ip
	}
	if helo == "" {
		helo = "[" + ip + "]"
	}
	if s.env.Login != "" {
		with = "ESMTPA"
	}
	if by == "" {
		by = "localhost"
	}
	line := fmt.Sprintf("Received: from %s (unknown [%s])%s\tby %s (Sluice) with %s id scan;%s\t%s%s",
		verdict.Printable(helo, 255), ip, eol, by, with, eol, s.env.Received.Format(time.RFC1123Z), eol)
	return io.MultiReader(strings.NewReader(line), rest)
}
