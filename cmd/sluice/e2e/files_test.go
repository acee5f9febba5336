package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/internal/testkit"
)

// mountSmall mounts a small file system for the spool and unmounts it at the end of the
// test.
func mountSmall(t *testing.T, data string) string {
	t.Helper()
	dir := filepath.Join(testkit.TempDir(t), "spool")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, data+",mode=0700"); err != nil {
		t.Fatalf("mount: %v (the tests run as root)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestFaultDiskFull and its twin: mail that can't be kept is deferred, mail that needs no
// disk goes on, and once there is room all is well again.
func TestFaultDiskFull(t *testing.T) {
	t.Parallel()
	full(t, "size=16m", func(dir string) []string {
		path := filepath.Join(dir, "other")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for b := make([]byte, 64<<10); err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		return []string{path}
	})
}

func TestFaultInodeFull(t *testing.T) {
	t.Parallel()
	full(t, "size=64m,nr_inodes=20", func(dir string) (made []string) {
		for n := 0; ; n++ {
			path := filepath.Join(dir, fmt.Sprint("other", n))
			f, err := os.Create(path)
			if errors.Is(err, syscall.ENOSPC) {
				return made
			}
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, path)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func full(t *testing.T, data string, fill func(dir string) []string) {
	t.Helper()
	dir := mountSmall(t, data)
	d := startDaemon(t, options{milter: "memory_limit: 1MiB", more: "spool: {path: " + dir + ", max_bytes: 1GiB}\n"})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	p := startPostfix(t, d, sink, nil)
	large := func(subject string) []byte {
		return identified(subject, testkit.Compose(subject, testkit.Text("See there.\n"), testkit.Attachment("a.bin", make([]byte, 4<<20))))
	}
	replies(t, smtp(t, p.SMTP, outside, large("before")), "250")
	made := fill(dir)
	for range 3 {
		replies(t, smtp(t, p.SMTP, outside, large("while full")), "451 4.3.")
		replies(t, smtp(t, p.SMTP, outside, clean("small")), "250")
		replies(t, smtp(t, p.SMTP, outside, spam("spam")), "550 5.7.1")
	}
	d.waitMetric(t, "sluice_spool_bytes", "0, with no message in flight", is(0))
	for _, path := range made {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	replies(t, smtp(t, p.SMTP, outside, large("after")), "250")
	arrives(t, sink, "after")
	emptyQueue(t, p)
	if n := count(sink, "while full"); n != 0 {
		t.Errorf("%d messages arrived that were deferred", n)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("left in the spool: %v %v", files, err)
	}
}

// offer is what Postfix begins a milter connection with.
func offer() []byte {
	p := binary.BigEndian.AppendUint32(nil, 6)
	p = binary.BigEndian.AppendUint32(p, 0x1ff)
	return frame('O', string(binary.BigEndian.AppendUint32(p, 0x1fffff)))
}

// TestFaultDescriptorExhaustion: with no descriptor left, connections that are there go on,
// new ones wait or are deferred by the MTA, and it recovers by itself.
func TestFaultDescriptorExhaustion(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, options{prefix: []string{"prlimit", "--nofile=48:48", "--"}})
	sink := testkit.StartSink(t, testkit.SinkOptions{})
	p := testkit.StartPostfix(t, testkit.PostfixOptions{Relay: sink.Addr(),
		SMTPDMilters: fmt.Sprintf("{ unix:%s, connect_timeout=2s, command_timeout=2s, default_action=tempfail }", d.socket)})
	replies(t, smtp(t, p.SMTP, outside, clean("before")), "250")
	before := d.dial(t, testkit.MilterOptions{})
	var others []net.Conn
	defer func() {
		for _, c := range others {
			_ = c.Close() // closed already
		}
	}()
	for range 80 {
		c, err := net.Dial("unix", d.socket)
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, c)
		if _, err := c.Write(offer()); err != nil {
			t.Fatal(err)
		}
	}
	d.waitLog(t, "can't accept connections, trying on")
	send := func(data []byte, want string) {
		t.Helper()
		r, err := before.Send(t.Context(), milterMail(data))
		if err != nil {
			t.Fatal(err)
		}
		replies(t, r.Reply.SMTP(), want)
	}
	send(clean("small"), "250")                                     // needs no descriptor
	send(spam("spam"), "550 5.7.1")                                 // likewise
	send(testkit.Sized("large", 300<<10), "451 4.3.")               // needs one
	send(clean("small again, after that"), "250")                   // and that did no harm
	replies(t, smtp(t, p.SMTP, outside, clean("exhausted")), "451") // Postfix can't get through
	for _, c := range others {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, func() error {
		reply, err := trySMTP(t.Context(), p.SMTP, outside, clean("after"))
		if err == nil && !strings.HasPrefix(reply, "250") {
			err = errors.New(reply)
		}
		return err
	})
	send(testkit.Sized("large", 300<<10), "250")
	if v := d.metric(t, "sluice_milter_accept_errors_total"); v == 0 {
		t.Error("no accept error was counted")
	}
	d.waitMetric(t, "sluice_milter_connections", "2 at most", func(v float64) bool { return v <= 2 })
	if n := count(sink, "exhausted"); n != 0 {
		t.Error("what was deferred arrived")
	}
}
