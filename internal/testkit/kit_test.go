package testkit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSinkRefusesAndBounds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	sink := StartSink(t, SinkOptions{KeepBytes: 100})
	sink.Refuse("Gone@example.org", "550 5.1.1 No such user")
	big := Sized("big", 300_000)
	results, err := Send(ctx, sink.Addr(), ClientOptions{},
		Mail{Sender: "a@example.net", SenderArgs: "SIZE=300000", Recipients: []string{"gone@example.org", "b@example.org"}, Data: big, ChunkBytes: 99_999, ChunkDelay: time.Millisecond},
		Mail{Sender: "", Recipients: []string{"gone@example.org"}, Data: big},
		Mail{Sender: "", Recipients: []string{"c@example.org"}, Data: []byte("Subject: dots\r\n\r\n.\r\n..\r\nend")})
	if err != nil {
		t.Fatal(err)
	}
	if r := results[0]; r.Recipients[0].String() != "550 5.1.1 No such user" || r.Final().Code != 250 {
		t.Errorf("first mail: %v", r)
	}
	if r := results[1]; r.Message.Code != 0 || r.Final().Code != 550 {
		t.Errorf("mail without recipients: %v", r)
	}
	got, err := sink.WaitFor(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	if d := got[0]; d.Size != 300_000 || len(d.Data) != 100 || len(d.Recipients) != 1 || strings.Join(d.SenderArgs, "") != "SIZE=300000" {
		t.Errorf("first arrived as %+v", d)
	}
	if d := got[1]; string(d.Body()) != ".\r\n..\r\nend\r\n" {
		t.Errorf("dots arrived as %q", d.Data)
	}
	if _, err := sink.WaitForSubject(ctx, "dots"); err != nil {
		t.Error(err)
	}
	short, stop := context.WithCancel(ctx)
	stop()
	if _, err := sink.WaitFor(short, 3); err == nil {
		t.Error("a wait for what can't come ended well")
	}
}

func TestProcess(t *testing.T) {
	dir := TempDir(t)
	shell := func(name, script string, ready func(context.Context) error) (*Process, error) {
		return StartProcess(t.Context(), Command{Path: "/bin/sh", Args: []string{"-c", script}, Log: filepath.Join(dir, name), Ready: ready,
			ReadyWithin: 5 * time.Second, StopWithin: 200 * time.Millisecond})
	}
	never := func(context.Context) error { return os.ErrNotExist }

	if _, err := shell("ends", "echo told; exit 3", never); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "told") {
		t.Errorf("a server that ends: %v", err)
	}
	if _, err := StartProcess(t.Context(), Command{Path: "/nonexistent", Log: filepath.Join(dir, "none")}); err == nil {
		t.Error("a program that isn't there was started")
	}

	child := filepath.Join(dir, "child")
	p, err := shell("stubborn", "trap '' TERM; sleep 600 & echo $! >"+child+".new; mv "+child+".new "+child+"; wait; wait; wait",
		func(context.Context) error { _, err := os.Stat(child); return err })
	if err != nil {
		t.Fatal(err)
	}
	usage, err := p.Usage()
	if err != nil || usage.Processes < 2 || usage.Threads < 2 || usage.Files == 0 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("stop of a stubborn server: %v", err)
	}
	var pid int
	text, err := os.ReadFile(child)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = Poll(ctx, nil, func(context.Context) error {
		if s, err := readStat(pid); err == nil && s.pgrp == p.PID() {
			return fmt.Errorf("process %d of the group is still there", pid)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("second stop: %v", err)
	}
	if err := p.Signal(syscall.SIGTERM); err == nil {
		t.Error("a process that has ended took a signal")
	}
}

// TestNothingOutlivesTheProgram starts itself as a program that starts a server,
// and kills that program.
func TestNothingOutlivesTheProgram(t *testing.T) {
	const inside = "TESTKIT_INSIDE"
	if dir := os.Getenv(inside); dir != "" {
		p, err := StartProcess(t.Context(), Command{Path: "/bin/sh", Args: []string{"-c", "sleep 600; sleep 600"}, Log: filepath.Join(dir, "log")})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%d\n", p.PID())
		<-p.Done()
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), inside+"="+TempDir(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pgid int
	if _, err := fmt.Fscan(out, &pgid); err != nil {
		t.Fatal(err)
	}
	if _, err := GroupUsage(pgid); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // "signal: killed"
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = Poll(ctx, nil, func(context.Context) error {
		if u, err := GroupUsage(pgid); err == nil && u.RSS > 0 { // a zombie has none
			return fmt.Errorf("group %d still runs: %+v", pgid, u)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// note is a TB that remembers.
type note struct {
	TB
	failed   bool
	logs     []string
	cleanups []func()
}

func (n *note) Helper()                   {}
func (n *note) Failed() bool              { return n.failed }
func (n *note) Cleanup(f func())          { n.cleanups = append(n.cleanups, f) }
func (n *note) Logf(f string, a ...any)   { n.logs = append(n.logs, fmt.Sprintf(f, a...)) }
func (n *note) Fatalf(f string, a ...any) { n.failed = true; n.Logf(f, a...) }

func TestTempDirIsKeptAfterFailure(t *testing.T) {
	for _, failed := range []bool{false, true} {
		n := &note{failed: failed}
		dir := TempDir(n)
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Fatalf("%v, %v", info, err)
		}
		for _, f := range n.cleanups {
			f()
		}
		_, err = os.Stat(dir)
		if kept := err == nil; kept != failed || kept != strings.Contains(strings.Join(n.logs, ""), dir) {
			t.Errorf("failed %v: kept %v, told %q", failed, kept, n.logs)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	n := &note{}
	SocketPath(n, "/"+strings.Repeat("d", 110), "s")
	if !n.failed {
		t.Error("a socket path of more than 107 bytes was taken")
	}
}
