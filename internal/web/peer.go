package web

import (
	"context"
	"net"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer is who connected to a unix socket, as the kernel says. It stands for the
// connection's remote address, so that it survives whatever wraps the connection.
type peer struct {
	uid  uint32
	name string // "" if the number has no name
}

func (peer) Network() string  { return "unix" }
func (p peer) String() string { return "uid " + strconv.FormatUint(uint64(p.uid), 10) }

type peerKey struct{}

// withPeer puts the connection's peer into the context of its requests.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.RemoteAddr().(peer); ok {
		return context.WithValue(ctx, peerKey{}, p)
	}
	return ctx
}

// peerListener asks the kernel who connected.
type peerListener struct{ net.Listener }

func (l peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if p, ok := peerOf(c); ok {
		return peerConn{c, p}, nil
	}
	return c, nil
}

type peerConn struct {
	net.Conn
	peer peer
}

func (c peerConn) RemoteAddr() net.Addr { return c.peer }

// peerOf returns the peer of a unix connection (SO_PEERCRED, unix(7)); ok is false
// for any other one.
func peerOf(c net.Conn) (p peer, ok bool) {
	sc, isSys := c.(syscall.Conn)
	if !isSys {
		return peer{}, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return peer{}, false
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil || cred == nil || cred.Pid == 0 {
		return peer{}, false // Pid is 0 where the family has no credentials
	}
	p.uid = cred.Uid
	if u, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil {
		p.name = u.Username
	}
	return p, true
}
