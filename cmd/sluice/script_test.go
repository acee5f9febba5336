package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/internal/testkit"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sluice": main})
}

// TestScripts runs the scripts in testdata/script. Beside testscript's own commands
// they have:
//
//	exits N PROG ARGS…    the program ends with that exit code
//	until RE PROG ARGS…   the program is run until it exits 0 and RE matches its
//	                      output (20 s at most)
//	signal NAME           HUP or TERM for the daemon that sluice status speaks to
//	fill FILE…            placeholders are filled in (see fill)
//	field NAME…           files of testdata/field are copied here and filled in
//	clamd NAME [ANSWER…]  a fake clamd answers each scan so; $NAME is its endpoint
//	port NAME             $NAME is a free port of loopback
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SLUICE_CONFIG", filepath.Join(e.WorkDir, "sluice.yaml"))
			e.Setenv("FIELD", filepath.Join(mustGetwd(t), "testdata", "field"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "until": until, "signal": signalDaemon, "fill": fillFiles, "field": copyField, "clamd": startClamd, "port": findPort,
		},
	})
}

var update = flag.Bool("update", false, "rewrite what scripts compare with")

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N PROG ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until RE PROG ARGS…")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ts.Check(testkit.Poll(ctx, nil, func(context.Context) error {
		if err := ts.Exec(args[1], args[2:]...); err != nil {
			return err
		}
		if !re.MatchString(ts.ReadFile("stdout")) {
			return fmt.Errorf("the output doesn't match %s", re)
		}
		return nil
	}))
}

func signalDaemon(ts *testscript.TestScript, _ bool, args []string) {
	sig, ok := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM}[strings.Join(args, " ")]
	if !ok {
		ts.Fatalf("usage: signal HUP|TERM")
	}
	ts.Check(ts.Exec("sluice", "status", "--json"))
	var status struct{ PID int }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &status))
	ts.Check(syscall.Kill(status.PID, sig))
}

func fillFiles(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		path := ts.MkAbs(name)
		ts.Check(os.WriteFile(path, []byte(fill(ts.ReadFile(name), ts.Getenv)), 0o600))
	}
}

func copyField(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		data, err := os.ReadFile(filepath.Join(ts.Getenv("FIELD"), name))
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(fill(string(data), ts.Getenv)), 0o600))
	}
}

var placeholder = regexp.MustCompile(`@(GTUBE|b64:eicar|pad:\d+|env:\w+)@`)

// fill replaces @GTUBE@, @b64:eicar@, @pad:N@ (N bytes of harmless lines) and @env:NAME@ (a
// variable of the script), so that no test string stands in the repository.
func fill(s string, getenv func(string) string) string {
	return placeholder.ReplaceAllStringFunc(s, func(m string) string {
		kind, arg, _ := strings.Cut(strings.Trim(m, "@"), ":")
		switch kind {
		case "GTUBE":
			return testkit.GTUBE()
		case "b64":
			return base64.StdEncoding.EncodeToString([]byte(testkit.EICAR()))
		case "env":
			return getenv(arg)
		}
		n, _ := strconv.Atoi(arg) // the expression takes only digits
		const line = "The figures of this week are the same as those of the week before.\n"
		return strings.Repeat(line, n/len(line)+1)[:n]
	})
}

func startClamd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: clamd NAME [ANSWER…]")
	}
	var o testkit.FakeClamdOptions
	for _, answer := range args[1:] {
		o.Scans = append(o.Scans, testkit.FakeAnswer(answer))
	}
	dir, err := testkit.MakeTempDir()
	ts.Check(err)
	c, err := testkit.RunFakeClamd(dir, o)
	ts.Check(err)
	ts.Defer(func() {
		c.Stop()
		_ = os.RemoveAll(dir) // a leftover below /tmp fails nothing
	})
	ts.Setenv(args[0], c.Endpoint())
}

func findPort(ts *testscript.TestScript, _ bool, args []string) {
	port, err := testkit.FindPort()
	ts.Check(err)
	ts.Setenv(args[0], fmt.Sprint(port))
}
