package testkit

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ClamdPath is Debian's clamd.
const ClamdPath = "/usr/sbin/clamd"

// The harmless strings that a private clamd takes for malware, beside EICAR, and
// the names it gives them. All come with the suffix ".UNOFFICIAL", which clamd adds
// to every signature that ClamAV didn't sign.
const (
	OddString = "sluice-odd-name-test-string-3d1f"    // OddName
	OddName   = "Sluice.Odd:A-1 (two words)"          // with colon, blank and brackets
	PUAString = "sluice-unwanted-program-test-string" // PUAName
	PUAName   = "PUA.Win.Test.Sluice-1"
	// EICARName is the name EICAR is found under.
	EICARName = "Eicar-Test-Signature"
)

// ClamdOptions say how a private clamd is set up. The zero value listens on a unix
// socket only, with Debian's limits, and alerts on what exceeds them.
type ClamdOptions struct {
	// TCP: listen on a free loopback port, too.
	TCP bool
	// DisableCache: every scan is done anew, for benchmarks.
	DisableCache bool
	// StreamMaxLength, MaxFileSize and MaxScanSize are in bytes; 0 means 25 MiB, 25 MiB, 100 MiB.
	StreamMaxLength, MaxFileSize, MaxScanSize int64
	// MaxThreads is the number of scans at a time; 0 means 12.
	MaxThreads int
	// QuietLimits: don't alert on exceeded limits and encryption, as clamd does by itself.
	QuietLimits bool
	// BlockingReload: stop scanning while signatures are loaded.
	BlockingReload bool
	// Signatures are further ones: name to the bytes that are looked for.
	Signatures map[string]string
	// Settings are further lines of clamd.conf.
	Settings []string
}

// Clamd is a private clamd. Its methods are safe for concurrent use.
type Clamd struct {
	// Dir holds its socket, signatures and log.
	Dir string
	// Socket is the path of its unix socket.
	Socket string
	// Address is host:port of its TCP socket, "" if it has none.
	Address string

	opts ClamdOptions
	conf string

	mu   sync.Mutex
	proc *Process // guarded by mu
}

// StartClamd starts a private clamd and stops it at the end of the test.
func StartClamd(t TB, o ClamdOptions) *Clamd {
	t.Helper()
	c, err := RunClamd(TempDir(t), o)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Logf("testkit: %v", err)
		}
	})
	return c
}

// RunClamd starts a private clamd in dir, which must exist, and returns when it
// answers. The caller stops it.
func RunClamd(dir string, o ClamdOptions) (*Clamd, error) {
	c := &Clamd{Dir: dir, Socket: filepath.Join(dir, "clamd.ctl"), opts: o, conf: filepath.Join(dir, "clamd.conf")}
	if len(c.Socket) > MaxSocketPath {
		return nil, fmt.Errorf("socket path %q is too long", c.Socket)
	}
	if o.TCP {
		port, err := FindPort()
		if err != nil {
			return nil, err
		}
		c.Address = Loopback(port)
	}
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o755); err != nil {
		return nil, err
	}
	if err := c.WriteSignatures(o.Signatures); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.conf, []byte(c.settings()), 0o644); err != nil {
		return nil, err
	}
	return c, c.Start()
}

// Endpoint returns the unix socket as Sluice's configuration has it.
func (c *Clamd) Endpoint() string { return "unix:" + c.Socket }

// TCPEndpoint returns the TCP socket as Sluice's configuration has it.
func (c *Clamd) TCPEndpoint() string { return "inet:" + c.Address }

// ConfigFile returns the path of its clamd.conf, for clamav-milter and clamdscan.
func (c *Clamd) ConfigFile() string { return c.conf }

func (c *Clamd) settings() string {
	o := c.opts
	or := func(n, otherwise int64) int64 {
		if n == 0 {
			return otherwise
		}
		return n
	}
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	lines := []string{
		"Foreground yes",
		"DatabaseDirectory " + filepath.Join(c.Dir, "db"),
		"TemporaryDirectory " + c.Dir,
		"LocalSocket " + c.Socket,
		"LocalSocketMode 666",
		"FixStaleSocket yes",
		"MaxConnectionQueueLength 200",
		"MaxThreads " + fmt.Sprint(or(int64(o.MaxThreads), 12)),
		"StreamMaxLength " + fmt.Sprint(or(o.StreamMaxLength, 25<<20)),
		"MaxFileSize " + fmt.Sprint(or(o.MaxFileSize, 25<<20)),
		"MaxScanSize " + fmt.Sprint(or(o.MaxScanSize, 100<<20)),
		"AlertExceedsMax " + yes(!o.QuietLimits),
		"AlertEncrypted " + yes(!o.QuietLimits),
		"DetectPUA yes",
		"ConcurrentDatabaseReload " + yes(!o.BlockingReload),
		"DisableCache " + yes(o.DisableCache),
		"SelfCheck 0",
		"Bytecode no",
	}
	if c.Address != "" {
		host, port, _ := net.SplitHostPort(c.Address) // ours, so it splits
		lines = append(lines, "TCPAddr "+host, "TCPSocket "+port)
	}
	return strings.Join(append(lines, o.Settings...), "\n") + "\n"
}

// WriteSignatures writes the signature database: EICAR, the strings above and
// more, name to bytes. A running clamd sees it at its next RELOAD.
func (c *Clamd) WriteSignatures(more map[string]string) error {
	all := map[string]string{EICARName: EICAR(), OddName: OddString, PUAName: PUAString}
	for name, s := range more {
		all[name] = s
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		// The logical form (.ldb) separates by ';', so that names may hold ':'.
		fmt.Fprintf(&b, "%s;Engine:51-255,Target:0;0;%s\n", name, hex.EncodeToString([]byte(all[name])))
	}
	path := filepath.Join(c.Dir, "db", "sluice.ldb")
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// BreakSignatures puts a database there that clamd can't load.
func (c *Clamd) BreakSignatures() error {
	return os.WriteFile(filepath.Join(c.Dir, "db", "sluice.ldb"), []byte("no;signature\n"), 0o644)
}

// Start starts clamd again after Stop or Kill, and returns when it answers.
func (c *Clamd) Start() error {
	p, err := StartProcess(context.Background(), Command{
		Path: ClamdPath,
		Args: []string{"--config-file=" + c.conf},
		// clamd gives memory back after each message, which is dear on some virtual
		// machines; this keeps it.
		Env:         append(os.Environ(), "MALLOC_TRIM_THRESHOLD_=1073741824", "MALLOC_MMAP_THRESHOLD_=33554432"),
		Dir:         c.Dir,
		Log:         filepath.Join(c.Dir, "clamd.log"),
		Ready:       func(context.Context) error { return pingClamd("unix", c.Socket) },
		ReadyWithin: 60 * time.Second,
		StopWithin:  10 * time.Second,
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.proc = p
	c.mu.Unlock()
	return nil
}

func (c *Clamd) process() *Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proc
}

// PID returns the process's ID.
func (c *Clamd) PID() int { return c.process().PID() }

// Stop ends clamd as a service manager does; one that was stopped by SIGSTOP is
// woken first.
func (c *Clamd) Stop() error {
	_ = c.Signal(syscall.SIGCONT) // it may have ended
	return c.process().Stop()
}

// Kill ends it by SIGKILL and waits for that. Its socket stays behind, dead.
func (c *Clamd) Kill() { c.process().Kill() }

// Signal sends a signal, SIGSTOP and SIGCONT among them.
func (c *Clamd) Signal(sig syscall.Signal) error { return c.process().Signal(sig) }

// Log returns the end of its log.
func (c *Clamd) Log() string { return c.process().LogTail(64 << 10) }

// Command sends one command, such as RELOAD, and returns the reply.
func (c *Clamd) Command(command string) (string, error) {
	return askClamd("unix", c.Socket, command)
}

func pingClamd(network, address string) error {
	reply, err := askClamd(network, address, "PING")
	if err == nil && reply != "PONG" {
		err = fmt.Errorf("clamd answers %q to PING", reply)
	}
	return err
}

func askClamd(network, address, command string) (string, error) {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "z"+command+"\x00"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(conn, 64<<10))
	return strings.TrimRight(string(b), "\x00\n"), err
}
