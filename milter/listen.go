package milter

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// Endpoint is where to listen, in the words of package net.
type Endpoint struct {
	// Network is "unix", "tcp" or "tcp6", Address the path or host:port.
	Network, Address string
}

// String returns the endpoint as Postfix's main.cf writes it.
func (e Endpoint) String() string {
	if e.Network == "unix" {
		return "unix:" + e.Address
	}
	return "inet:" + e.Address
}

// ParseEndpoint reads an endpoint as Postfix or Sendmail write it:
//
//	unix:/path  local:/path
//	inet:host:port  inet:port@host  inet6:port@host  tcp:host:port
//
// The host may not be left out: "0.0.0.0" or "::" is all interfaces. IPv6 addresses
// may stand in brackets.
func ParseEndpoint(spec string) (Endpoint, error) {
	kind, rest, ok := strings.Cut(spec, ":")
	bad := func(why string) (Endpoint, error) {
		return Endpoint{}, fmt.Errorf("%q: %s (write unix:/path or inet:127.0.0.1:8891)", spec, why)
	}
	if !ok || rest == "" {
		return bad("not an address to listen on")
	}
	network := "tcp"
	switch strings.ToLower(kind) {
	case "unix", "local":
		if strings.ContainsRune(rest, 0) {
			return bad("NUL in the path")
		}
		return Endpoint{"unix", rest}, nil
	case "inet", "tcp":
	case "inet6":
		network = "tcp6"
	default:
		return bad("unknown kind of address")
	}
	host, port := "", ""
	if p, h, found := strings.Cut(rest, "@"); found {
		host, port = h, p
	} else if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, port = rest[:i], rest[i+1:]
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && port != "0" {
		return bad("no port between 0 and 65535")
	}
	if host == "" {
		return bad("no host")
	}
	return Endpoint{network, net.JoinHostPort(host, port)}, nil
}

// SocketOptions are the rights of a unix socket.
type SocketOptions struct {
	// Mode is its mode; 0 means 0660.
	Mode fs.FileMode
	// Group is the name or number of its group, "" for the process's.
	Group string
}

// Listen listens on an endpoint. A unix socket appears at its path with its mode and group
// and never with wider ones; a stale one is taken over, but not one that somebody still
// answers on, and never anything that isn't a socket. Closing the listener removes
// the socket if it is still the same.
func Listen(e Endpoint, o SocketOptions) (net.Listener, error) {
	if e.Network != "unix" {
		l, err := net.Listen(e.Network, e.Address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s: another process listens there; stop it or choose another port: %w", e, err)
		}
		return l, err
	}
	l, err := listenUnix(e.Address, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e, err)
	}
	return l, nil
}

// maxSocketPath is the longest path of a unix socket in bytes (unix(7)).
const maxSocketPath = 107

func listenUnix(path string, o SocketOptions) (_ net.Listener, err error) {
	gid := -1
	if o.Group != "" {
		if gid, err = lookupGroup(o.Group); err != nil {
			return nil, err
		}
	}
	if o.Mode == 0 {
		o.Mode = 0o660
	}
	if err := vacant(path); err != nil {
		return nil, err
	}
	// The socket is bound in a directory that nobody else can enter, given its rights, and
	// only then moved to its path (in place of a stale one).
	dir := filepath.Join(filepath.Dir(path), ".s"+rand.Text()[:8])
	hidden := filepath.Join(dir, "s")
	if len(path) > maxSocketPath || len(hidden) > maxSocketPath {
		return nil, fmt.Errorf("the path is too long for a socket; choose one of at most %d bytes", maxSocketPath-len("/s")-len(".s12345678")+len(filepath.Base(path)))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the socket's directory must exist and be writable: %w", err)
	}
	defer os.RemoveAll(dir)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer func() {
		if err != nil {
			_ = l.Close() // the first error counts
		}
	}()
	if gid >= 0 {
		if err := os.Lchown(hidden, -1, gid); err != nil {
			return nil, fmt.Errorf("socket_group %s: the daemon's user must be a member of it: %w", o.Group, err)
		}
	}
	if err := os.Chmod(hidden, o.Mode.Perm()); err != nil {
		return nil, err
	}
	info, err := os.Lstat(hidden)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(hidden, path); err != nil {
		return nil, err
	}
	return &unixListener{UnixListener: l, path: path, info: info}, nil
}

// vacant reports an error unless a socket may be put at path: nothing is there, or a socket
// that nobody answers on.
func vacant(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something is there that is not a socket; remove it or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close() // it was only to see whether somebody is there
		return errors.New("another process answers there; stop it or choose another path")
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("a socket is there and it can't be told whether it is in use: %w", err)
}

func lookupGroup(name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("socket_group: %w", err)
	}
	return strconv.Atoi(g.Gid)
}

// unixListener removes its socket when it is closed.
type unixListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

func (l *unixListener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.info) {
			_ = os.Remove(l.path) // the next start takes a stale one over
		}
	})
	return l.UnixListener.Close()
}

// Addr returns the path that the socket was moved to.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Activated returns the sockets that systemd passed to the process (sd_listen_fds(3)), none
// if it passed none. It may be called once; a descriptor that isn't a listening stream
// socket is an error.
func Activated() ([]net.Listener, error) {
	ls, err := activation.Listeners()
	if err != nil {
		return nil, err
	}
	for i, l := range ls {
		if l != nil {
			continue
		}
		for _, other := range ls {
			if other != nil {
				_ = other.Close() // none of them is used
			}
		}
		return nil, fmt.Errorf("descriptor %d from systemd is not a listening stream socket; use ListenStream= in the socket unit", 3+i)
	}
	return ls, nil
}
