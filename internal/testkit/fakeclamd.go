package testkit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// FakeScan plays clamd's part in one scan, from after the command to the end of
// the connection.
type FakeScan func(*FakeConn)

// FakeClamdOptions say what a FakeClamd does.
type FakeClamdOptions struct {
	// TCP: listen on a loopback port instead of a unix socket.
	TCP bool
	// Scans are played one after the other, one a scan; the last one again and
	// again. None means FakeAnswer("OK").
	Scans []FakeScan
	// Control answers PING, VERSION and their kin; nil: as clamd does. What it
	// returns is written as it is.
	Control func(command string) []byte
}

// FakeClamd does what the real clamd can't be made to do: hang, lie, trickle,
// break off. Safe for concurrent use.
type FakeClamd struct {
	// Socket is the path of its unix socket, Address its host:port; one is "".
	Socket, Address string

	listener net.Listener
	work     sync.WaitGroup
	closing  chan struct{}

	mu      sync.Mutex
	opts    FakeClamdOptions      // guarded by mu
	scans   int                   // guarded by mu
	conns   map[net.Conn]struct{} // guarded by mu
	command map[string]int        // guarded by mu
}

// StartFakeClamd starts one and stops it at the end of the test.
func StartFakeClamd(t TB, o FakeClamdOptions) *FakeClamd {
	t.Helper()
	f, err := RunFakeClamd(TempDir(t), o)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(f.Stop)
	return f
}

// RunFakeClamd starts one with its socket in dir. The caller stops it.
func RunFakeClamd(dir string, o FakeClamdOptions) (*FakeClamd, error) {
	f := &FakeClamd{opts: o, closing: make(chan struct{}), conns: map[net.Conn]struct{}{}, command: map[string]int{}}
	var err error
	if o.TCP {
		if f.listener, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			f.Address = f.listener.Addr().String()
		}
	} else {
		f.Socket = filepath.Join(dir, "fakeclamd.ctl")
		f.listener, err = net.Listen("unix", f.Socket)
	}
	if err != nil {
		return nil, err
	}
	f.work.Go(f.accept)
	return f, nil
}

// Endpoint returns where it listens, as Sluice's configuration has it.
func (f *FakeClamd) Endpoint() string {
	if f.Address != "" {
		return "inet:" + f.Address
	}
	return "unix:" + f.Socket
}

// SetScans changes what further scans get.
func (f *FakeClamd) SetScans(scans ...FakeScan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opts.Scans, f.scans = scans, 0
}

// Commands returns how often the command was given.
func (f *FakeClamd) Commands(command string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.command[command]
}

// Open returns the number of connections that are open.
func (f *FakeClamd) Open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

// Stop closes every connection and waits until all scans have ended. To stop twice
// does no harm.
func (f *FakeClamd) Stop() {
	f.mu.Lock()
	select {
	case <-f.closing:
	default:
		close(f.closing)
	}
	_ = f.listener.Close() // it may be closed
	for c := range f.conns {
		_ = c.Close() // likewise
	}
	f.mu.Unlock()
	f.work.Wait()
}

func (f *FakeClamd) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		select {
		case <-f.closing:
			_ = c.Close()
		default:
			f.conns[c] = struct{}{}
			f.work.Go(func() { f.serve(c) })
		}
		f.mu.Unlock()
	}
}

func (f *FakeClamd) serve(c net.Conn) {
	fc := &FakeConn{Conn: c, fake: f}
	defer func() {
		fc.dropFile()
		_ = c.Close() // Stop may have closed it
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
	}()
	command, err := fc.readCommand()
	if err != nil {
		return
	}
	f.mu.Lock()
	f.command[command]++
	control := f.opts.Control
	var play FakeScan
	if command == "INSTREAM" || command == "FILDES" {
		play = FakeAnswer("OK")
		if n := len(f.opts.Scans); n > 0 {
			play = f.opts.Scans[min(f.scans, n-1)]
		}
		f.scans++
	}
	f.mu.Unlock()
	fc.Command = command
	switch {
	case play != nil:
		play(fc)
	case control != nil:
		_, _ = c.Write(control(command)) // the client may be gone
	default:
		replies := map[string]string{"PING": "PONG", "RELOAD": "RELOADING", "VERSION": "ClamAV 1.4.6/27000/Mon Nov 23 09:00:00 2026", "STATS": "POOLS: 1\nEND"}
		_, _ = c.Write([]byte(replies[command] + fc.terminator))
	}
}

// FakeConn is one connection of a FakeClamd, its command read.
type FakeConn struct {
	net.Conn
	// Command is INSTREAM or FILDES.
	Command string

	fake       *FakeClamd
	terminator string
	rest       []byte   // read beyond the command
	file       *os.File // handed over
}

func (c *FakeConn) dropFile() {
	if c.file != nil {
		_ = c.file.Close() // read-only
	}
}

// Stopping is closed when the fake is told to stop: what hangs waits for it.
func (c *FakeConn) Stopping() <-chan struct{} { return c.fake.closing }

// Reply returns text as a reply to the command: with clamd's prefix and the terminator
// of the command's form.
func (c *FakeConn) Reply(text string) string {
	if c.Command == "FILDES" {
		return "fd[10]: " + text + c.terminator
	}
	return "stream: " + text + c.terminator
}

// readCommand reads up to the end of a z- or n-command, and takes a descriptor.
func (c *FakeConn) readCommand() (string, error) {
	var got []byte
	for {
		p, err := c.receive()
		if err != nil {
			return "", err
		}
		got = append(got, p...)
		if len(got) == 0 {
			continue
		}
		c.terminator = "\n"
		if got[0] == 'z' {
			c.terminator = "\x00"
		}
		if line, rest, ok := bytes.Cut(got, []byte(c.terminator)); ok {
			c.rest = rest
			return strings.TrimLeft(string(line), "zn"), nil
		}
		if len(got) > 64<<10 {
			return "", errors.New("no command")
		}
	}
}

// receive reads what is there, a descriptor too.
func (c *FakeConn) receive() ([]byte, error) {
	b := make([]byte, 64<<10)
	u, ok := c.Conn.(*net.UnixConn)
	if !ok {
		n, err := c.Conn.Read(b)
		return b[:n], err
	}
	oob := make([]byte, 128)
	n, oobn, _, _, err := u.ReadMsgUnix(b, oob)
	if err == nil && n == 0 && oobn == 0 {
		err = io.EOF
	}
	if msgs, e := syscall.ParseSocketControlMessage(oob[:oobn]); e == nil {
		for i := range msgs {
			if fds, e := syscall.ParseUnixRights(&msgs[i]); e == nil && len(fds) > 0 {
				c.dropFile()
				c.file = os.NewFile(uintptr(fds[0]), "handed over")
			}
		}
	}
	return b[:n], err
}

// Read reads what follows the command.
func (c *FakeConn) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// ReadMessage reads the whole message, streamed or handed over.
func (c *FakeConn) ReadMessage() ([]byte, error) {
	if c.Command == "FILDES" {
		for c.file == nil {
			if _, err := c.receive(); err != nil {
				return nil, err
			}
		}
		return io.ReadAll(c.file)
	}
	var all []byte
	for {
		part, err := c.ReadChunk()
		if err != nil || part == nil {
			return all, err
		}
		all = append(all, part...)
	}
}

// ReadChunk reads one chunk of INSTREAM; nil at the end.
func (c *FakeConn) ReadChunk() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n == 0 {
		return nil, nil
	}
	if n > 64<<20 {
		return nil, errors.New("chunk above 64 MiB")
	}
	part := make([]byte, n)
	_, err := io.ReadFull(c, part)
	return part, err
}

// FakeAnswer reads the message and answers text, such as "OK" or "X FOUND", in
// clamd's form.
func FakeAnswer(text string) FakeScan {
	return func(c *FakeConn) {
		if _, err := c.ReadMessage(); err == nil {
			_, _ = io.WriteString(c, c.Reply(text)) // the client may be gone
		}
	}
}

// FakeRaw reads the message, writes the bytes and closes.
func FakeRaw(reply string) FakeScan {
	return func(c *FakeConn) {
		if _, err := c.ReadMessage(); err == nil {
			_, _ = io.WriteString(c, reply) // the client may be gone
		}
	}
}

// FakeAtOnce writes the bytes without reading anything, and closes when the client
// does.
func FakeAtOnce(reply string) FakeScan {
	return func(c *FakeConn) {
		_, _ = io.WriteString(c, reply) // the client may be gone
		_, _ = io.Copy(io.Discard, c)   // until it is
	}
}

// FakeHang reads the message and never answers.
func FakeHang(c *FakeConn) {
	if _, err := c.ReadMessage(); err == nil {
		_, _ = io.Copy(io.Discard, c) // until the client or Stop closes
	}
}

// FakeDeaf takes the connection and reads nothing.
func FakeDeaf(c *FakeConn) { <-c.Stopping() }

// FakeGarbage reads the message and then writes letters without an end.
func FakeGarbage(c *FakeConn) {
	if _, err := c.ReadMessage(); err != nil {
		return
	}
	junk := bytes.Repeat([]byte("x"), 64<<10)
	for {
		if _, err := c.Write(junk); err != nil {
			return
		}
	}
}

// FakeBreak reads one piece of the message and closes.
func FakeBreak(c *FakeConn) {
	var b [1]byte
	_, _ = c.Read(b[:]) // whatever comes of it
}

// FakeTooLarge reads limit bytes of a stream, then answers as clamd does when
// StreamMaxLength is exceeded, and closes amid the message.
func FakeTooLarge(limit int) FakeScan {
	return func(c *FakeConn) {
		for n := 0; n <= limit; {
			part, err := c.ReadChunk()
			if err != nil || part == nil {
				return
			}
			n += len(part)
		}
		_, _ = io.WriteString(c, "INSTREAM size limit exceeded. ERROR"+c.terminator) // the client may be gone
	}
}
