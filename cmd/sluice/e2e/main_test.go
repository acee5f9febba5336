package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"sluice/internal/testkit"
)

// patience bounds each wait for something that should happen soon.
const patience = 60 * time.Second

// binaries are the programs under test. Memory is measured on the plain one: the
// race detector keeps shadows of memory, several bytes for each.
type binaries struct {
	dir, sluice string
	plain       func() (string, error)
}

var built binaries // made by TestMain before any test

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := testkit.MakeTempDir()
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	built = binaries{dir: dir, plain: sync.OnceValues(func() (string, error) { return build(dir, "plain") })}
	var args []string
	if underRace() {
		args = []string{"-race"}
	}
	if built.sluice, err = build(dir, "sluice", args...); err != nil {
		return 1, err
	}
	code = m.Run()
	return code, shared.stop(code != 0)
}

// build builds the program.
func build(dir, name string, args ...string) (string, error) {
	path := filepath.Join(dir, name)
	args = append([]string{"build", "-buildvcs=false", "-o", path}, args...)
	out, err := exec.Command("go", append(args, "sluice/cmd/sluice")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// underRace reports whether these tests were built with -race.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			return true
		}
	}
	return false
}
