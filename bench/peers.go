package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"sluice/internal/testkit"
)

// peer is one filter to be measured.
type peer struct {
	name    string
	socket  string // path of its milter socket
	process *testkit.Process
	// clamd says that it asks clamd, whose CPU time is then its due, too.
	clamd bool
	// web is host:port of its metrics, "" if it has none.
	web string
}

// The peers, in the order of the tables.
const (
	noopPeer   = "no-op go-milter"
	clamavPeer = "clamav-milter + clamd"
	barePeer   = "Sluice, no scanners"
	clamdPeer  = "Sluice + clamd"
	rulesPeer  = "Sluice + clamd + rules"
)

const memoryLimit = 512 << 20

func (b *bench) start(ctx context.Context) error {
	dir, err := b.subdir("clamd")
	if err != nil {
		return err
	}
	b.clamd, err = testkit.RunClamd(dir, testkit.ClamdOptions{DisableCache: true, MaxThreads: 12, StreamMaxLength: 100 << 20, MaxFileSize: 100 << 20, MaxScanSize: 400 << 20,
		Settings: []string{"MaxQueue 200"}})
	if err != nil {
		return err
	}
	for _, start := range []func(context.Context) (*peer, error){
		b.startNoop, b.startClamavMilter,
		func(ctx context.Context) (*peer, error) { return b.startSluice(ctx, barePeer, "bare", false, false) },
		func(ctx context.Context) (*peer, error) { return b.startSluice(ctx, clamdPeer, "clamd1", true, false) },
		func(ctx context.Context) (*peer, error) { return b.startSluice(ctx, rulesPeer, "rules", true, true) },
	} {
		p, err := start(ctx)
		if err != nil {
			return err
		}
		b.peers = append(b.peers, p)
	}
	return nil
}

func (b *bench) peer(name string) *peer {
	for _, p := range b.peers {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (b *bench) stop() error {
	var errs []error
	for _, p := range b.peers {
		errs = append(errs, p.process.Stop())
	}
	if b.clamd != nil {
		errs = append(errs, b.clamd.Stop())
	}
	return errors.Join(errs...)
}

func listening(socket string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

func (b *bench) startNoop(ctx context.Context) (*peer, error) {
	program := filepath.Join(b.dir, "noop.bin")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "./bench/noop").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build noop: %w: %s", err, out)
	}
	return b.launch(ctx, &peer{name: noopPeer}, "noop", program)
}

func (b *bench) startClamavMilter(ctx context.Context) (*peer, error) {
	dir, err := b.subdir("clamav-milter")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "clamav-milter.conf")
	content := fmt.Sprintf("MilterSocket unix:%[1]s/milter.sock\nMilterSocketMode 666\nClamdSocket unix:%[2]s\nForeground yes\nAddHeader Replace\nOnInfected Reject\nMaxFileSize 100M\nTemporaryDirectory %[1]s\n", dir, b.clamd.Socket)
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		return nil, err
	}
	return b.launch(ctx, &peer{name: clamavPeer, clamd: true}, "clamav-milter", "/usr/sbin/clamav-milter", "--config-file="+config)
}

// launch starts a peer in its directory; a program without arguments is given the
// socket.
func (b *bench) launch(ctx context.Context, p *peer, name, program string, args ...string) (*peer, error) {
	dir, err := b.subdir(name)
	if err != nil {
		return nil, err
	}
	p.socket = filepath.Join(dir, "milter.sock")
	if len(args) == 0 {
		args = []string{p.socket}
	}
	p.process, err = testkit.StartProcess(ctx, testkit.Command{Path: program, Args: args, Log: filepath.Join(dir, "log"), Ready: listening(p.socket)})
	return p, err
}

func (b *bench) startSluice(ctx context.Context, name, folder string, clamd, rules bool) (*peer, error) {
	dir, err := b.subdir(folder)
	if err != nil {
		return nil, err
	}
	port, err := testkit.FindPort()
	if err != nil {
		return nil, err
	}
	scanners := "{}"
	if clamd {
		scanners = fmt.Sprintf("\n  clamav: { endpoints: [%q], workers: 12, max_size: 100MiB }", b.clamd.Endpoint())
	}
	if rules {
		scanners += "\n  rules: { paths: [], builtin: true }"
	}
	content := fmt.Sprintf(`user: ""
milter:
  listen: ["unix:%[1]s/milter.sock"]
  socket_mode: 0666
  max_connections: 3000
  memory_limit: %[2]d
http: { listen: %[3]s, admin: "unix:%[1]s/admin.sock" }
store: { path: %[1]s/store }
scanners: %[4]s
`, dir, memoryLimit, testkit.Loopback(port), scanners)
	config := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		return nil, err
	}
	return b.launch(ctx, &peer{name: name, clamd: clamd, web: testkit.Loopback(port)}, folder, b.options.sluice, "serve", "--config", config)
}
