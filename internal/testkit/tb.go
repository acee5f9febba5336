package testkit

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// TB is the part of testing.TB that the kit needs.
type TB interface {
	Helper()
	Name() string
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// MaxSocketPath is the longest path of a unix socket in bytes (sun_path of
// unix(7), less its NUL).
const MaxSocketPath = 107

// TempDir returns a new directory with a short path that servers running as
// another user can enter (0755; that of testing.T.TempDir is 0700 and long). It
// is removed at the end of the test, or kept and told if the test failed.
func TempDir(t TB) string {
	t.Helper()
	dir, err := MakeTempDir()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("testkit: kept %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("testkit: %v", err)
		}
	})
	return dir
}

// MakeTempDir is TempDir for programs, which remove the directory themselves.
func MakeTempDir() (string, error) {
	base := os.TempDir()
	if len(base) > 40 { // room for a socket below it
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "slk")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// SocketPath returns the path of a unix socket in dir and stops the test if the
// kernel couldn't take it.
func SocketPath(t TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if len(path) > MaxSocketPath {
		t.Fatalf("testkit: socket path %q has more than %d bytes", path, MaxSocketPath)
	}
	return path
}

// FreePort returns a TCP port on which nothing listens on loopback.
func FreePort(t TB) int {
	t.Helper()
	port, err := FindPort()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return port
}

// FindPort is FreePort for programs. The port is below those that Linux gives to
// clients (32768), so that no connection takes it before the server does.
func FindPort() (int, error) {
	for range 200 {
		port := 10240 + rand.IntN(32000-10240)
		if listenable("127.0.0.1", port) && (!HasIPv6() || listenable("::1", port)) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port on loopback")
}

func listenable(host string, port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// HasIPv6 reports whether this machine has the address ::1.
func HasIPv6() bool { return listenable("::1", 0) }

// Loopback returns 127.0.0.1:port.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
