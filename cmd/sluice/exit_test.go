package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"

	"sluice/internal/config"
	"sluice/internal/mail"
	"sluice/internal/web"
)

func TestExitCodes(t *testing.T) {
	code := func(err error) int {
		e := (*exitError)(nil)
		if !errors.As(err, &e) {
			return -1
		}
		return e.code
	}
	away := &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}
	closed := &net.OpError{Op: "dial", Net: "unix", Err: syscall.EACCES}
	for _, c := range []struct {
		name      string
		got, want int
	}{
		{"a daemon that is away", code(statusError("s", fmt.Errorf("get: %w", away))), exitUnavailable},
		{"a socket that may not be opened", code(statusError("s", fmt.Errorf("get: %w", closed))), exitNoPerm},
		{"a user without a role", code(statusError("s", &web.RefusedError{Code: 403})), exitNoPerm},
		{"a daemon in trouble", code(statusError("s", &web.RefusedError{Code: 500})), exitUnavailable},
		{"an answer that can't be read", code(statusError("s", errors.New("x"))), exitUnavailable},
		{"a port that is taken", listenCode(fmt.Errorf("x: %w", syscall.EADDRINUSE)), exitTryAgain},
		{"a port that is reserved", listenCode(fmt.Errorf("x: %w", syscall.EACCES)), exitNoPerm},
		{"a socket's folder that isn't there", listenCode(fmt.Errorf("x: %w", fs.ErrNotExist)), exitConfig},
		{"no more descriptors", codeOf(syscall.EMFILE, exitIO), exitTryAgain},
		{"a message that isn't there", readCode(fs.ErrNotExist), exitNoInput},
		{"a message that may not be read", readCode(fs.ErrPermission), exitNoPerm},
		{"a message that is too large", readCode(mail.ErrTooLarge), exitData},
		{"a message that can't be read", readCode(syscall.EIO), exitIO},
		{"the first code of joined errors", code(joinErrors(nil, told(exitData), errors.New("x"), told(exitIO))), exitData},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.name, c.got, c.want)
		}
	}
	if joinErrors(nil, nil) != nil {
		t.Error("no errors make one")
	}
}

func TestScanEnvelope(t *testing.T) {
	f := scanFlags{client: "IPv6:2001:db8::1", helo: "mail.example.com", sender: "<lee@example.com>", rcpts: []string{"kim@example.org", "<x@example.org>"}, auth: "lee"}
	env, err := f.envelope()
	if err != nil || env.Client.Addr.String() != "2001:db8::1" || env.Sender.Address.String() != "lee@example.com" || len(env.Recipients) != 2 || env.Login != "lee" || env.Local {
		t.Errorf("%+v, %v", env, err)
	}
	for name, f := range map[string]scanFlags{
		"client": {client: "x"}, "sender": {sender: "x"}, "recipient": {rcpts: []string{"x"}}, "null recipient": {rcpts: []string{"<>"}},
	} {
		if _, err := f.envelope(); err == nil {
			t.Errorf("a bad %s was taken", name)
		}
	}
}

func TestDescriptorsShort(t *testing.T) {
	c := config.Default()
	c.Milter.MaxConnections = 1
	if s := descriptorsShort(&c); s != "" {
		t.Error(s)
	}
	c.Milter.MaxConnections = 1 << 40
	if s := descriptorsShort(&c); !strings.Contains(s, "LimitNOFILE") {
		t.Error(s)
	}
}

func TestNeedRestart(t *testing.T) {
	a, b := config.Default(), config.Default()
	if keys := needRestart(&a, &b); len(keys) > 0 {
		t.Errorf("nothing differs, but %v", keys)
	}
	b.Milter.Listen, b.Spool.MaxBytes, b.Log.Level, b.Policy.File = nil, 1, "debug", "x"
	b.User, b.Spool.Path, b.Store.Path = "other", "x", "y"
	if keys := needRestart(&a, &b); strings.Join(keys, " ") != "user milter.listen spool.path store.path" {
		t.Error(keys)
	}
}
