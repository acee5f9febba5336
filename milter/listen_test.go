package milter

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	for _, tt := range []struct {
		spec string
		want Endpoint // zero: an error
	}{
		{"unix:/run/sluice/milter.sock", Endpoint{"unix", "/run/sluice/milter.sock"}},
		{"unix:sluice/milter.sock", Endpoint{"unix", "sluice/milter.sock"}},
		{"local:/run/x", Endpoint{"unix", "/run/x"}},
		{"inet:127.0.0.1:8891", Endpoint{"tcp", "127.0.0.1:8891"}},
		{"inet:8891@127.0.0.1", Endpoint{"tcp", "127.0.0.1:8891"}},
		{"INET:localhost:0", Endpoint{"tcp", "localhost:0"}},
		{"tcp:0.0.0.0:8891", Endpoint{"tcp", "0.0.0.0:8891"}},
		{"inet:[::1]:8891", Endpoint{"tcp", "[::1]:8891"}},
		{"inet:::1:8891", Endpoint{"tcp", "[::1]:8891"}},
		{"inet6:8891@::1", Endpoint{"tcp6", "[::1]:8891"}},
		{"inet6:8891@[::1]", Endpoint{"tcp6", "[::1]:8891"}},
		{"", Endpoint{}},
		{"unix:", Endpoint{}},
		{"unix:/run/\x00x", Endpoint{}},
		{"/run/x", Endpoint{}},
		{"inet:8891", Endpoint{}},
		{"inet::8891", Endpoint{}},
		{"inet:8891@", Endpoint{}},
		{"inet:host:port", Endpoint{}},
		{"inet:127.0.0.1:65536", Endpoint{}},
		{"inet:127.0.0.1:-1", Endpoint{}},
		{"udp:127.0.0.1:25", Endpoint{}},
	} {
		got, err := ParseEndpoint(tt.spec)
		if got != tt.want || (err != nil) != (tt.want == Endpoint{}) {
			t.Errorf("%q: %+v, %v; want %+v", tt.spec, got, err, tt.want)
		}
		if err == nil {
			if again, err := ParseEndpoint(got.String()); err != nil || again.Address != got.Address {
				t.Errorf("%q printed as %q is read as %+v, %v", tt.spec, got, again, err)
			}
		}
	}
}

// socketDir returns a directory with a path short enough for sockets.
func socketDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "sl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestUnixSocket(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "milter.sock")
	for _, umask := range []int{0, 0o077, 0o777} {
		old := syscall.Umask(umask)
		l, err := Listen(Endpoint{"unix", path}, SocketOptions{Mode: 0o660, Group: strconv.Itoa(os.Getgid())})
		syscall.Umask(old)
		if umask == 0o777 && os.Getuid() != 0 {
			continue // an unprivileged process can't enter its own directory then
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != fs.ModeSocket|0o660 {
			t.Errorf("umask %o: mode %v, %v", umask, info.Mode(), err)
		}
		if l.Addr().String() != path {
			t.Errorf("address %v", l.Addr())
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestSocketThatIsThereAlready(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "milter.sock")
	endpoint := Endpoint{"unix", path}
	live, err := Listen(endpoint, SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(endpoint, SocketOptions{}); err == nil || !strings.Contains(err.Error(), "another process answers there; stop it") {
		t.Errorf("live socket: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the live socket no longer answers: %v", err)
	} else {
		c.Close()
	}
	live.(*unixListener).UnixListener.Close() // as SIGKILL does, the socket stays
	next, err := Listen(endpoint, SocketOptions{})
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	// A third process has put its own there: closing leaves it alone.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	third, err := Listen(endpoint, SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	next.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("another's socket was removed: %v", err)
	}
}

func TestSocketPathsThatWontDo(t *testing.T) {
	dir := socketDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path, group, want string
	}{
		{"a file", file, "", "not a socket"},
		{"a link", link, "", "not a socket"},
		{"a directory", dir, "", "not a socket"},
		{"no directory", filepath.Join(dir, "none", "s"), "", "must exist"},
		{"too long", filepath.Join(dir, strings.Repeat("x", 120)), "", "too long"},
		{"no such group", filepath.Join(dir, "s"), "no-such-group-here", "socket_group"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Listen(Endpoint{"unix", tt.path}, SocketOptions{Group: tt.group}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "kept" {
		t.Errorf("the file is now %q, %v", b, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := Listen(Endpoint{"tcp", "127.0.0.1:0"}, SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(Endpoint{"tcp", l.Addr().String()}, SocketOptions{}); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("error %v", err)
	}
}

func TestNoSocketsFromSystemd(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	if ls, err := Activated(); err != nil || len(ls) != 0 {
		t.Errorf("sockets meant for another process were taken: %v, %v", ls, err)
	}
}
