package rules

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed builtin/*.cf
var builtinFiles embed.FS

// Options say what is loaded beside the paths. The zero value loads the paths
// only, with SpamAssassin's score set 0 (no network tests, no Bayes).
type Options struct {
	// Builtin adds our own set, before all files, so that these can override it.
	Builtin bool
	// Optional are those of the paths that may be missing without an error.
	Optional []string
	// Symbols are the names that scanners of stage 1 may set. A meta that names
	// another one which no file defines gets a notice.
	Symbols []string
	// ScoreSet chooses from score lines with four values: 0 to 3.
	ScoreSet int
}

// Load reads .cf files: each path is a file, or a folder whose files named *.cf
// are read in lexical order, not those of folders below. Later definitions
// override earlier ones.
//
// The problems say what of it isn't run as it was written, by file and line;
// they are no error, and what they don't name is in force. The
// error is that of a path that can't be read; all such paths are named, and the
// set is nil then.
func Load(paths []string, opts Options) (*Ruleset, []Problem, error) {
	if opts.ScoreSet < 0 || opts.ScoreSet > 3 {
		return nil, nil, fmt.Errorf("rules: score set %d: it is 0, 1, 2 or 3", opts.ScoreSet)
	}
	r := newReader()
	if opts.Builtin {
		if err := r.readBuiltin(); err != nil {
			return nil, nil, fmt.Errorf("rules: %w", err)
		}
	}
	var errs []error
	for _, p := range paths {
		err := r.readPath(p)
		if errors.Is(err, fs.ErrNotExist) && slices.Contains(opts.Optional, p) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("rules: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	set := build(r, opts)
	if r.dropped > 0 {
		r.problems = append(r.problems, Problem{File: r.file, Severity: Notice, Why: "limit",
			What: fmt.Sprintf("%d more problems are not listed", r.dropped), Remedy: "mend the ones above first", Count: r.dropped})
	}
	return set, r.problems, nil
}

func (r *reader) readBuiltin() error {
	names, err := fs.Glob(builtinFiles, "builtin/*.cf")
	if err != nil {
		return err
	}
	for _, name := range names { // Glob sorts
		text, err := builtinFiles.ReadFile(name)
		if err != nil {
			return err
		}
		r.readFile(name, string(text))
	}
	return nil
}

// readPath reads a file or a folder.
func (r *reader) readPath(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return r.readDisk(path)
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".cf") && !strings.HasPrefix(e.Name(), ".") {
			errs = append(errs, r.readDisk(filepath.Join(path, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// readDisk reads one file, if it is a regular one and within the bounds.
func (r *reader) readDisk(path string) error {
	r.file, r.line = path, 0
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		r.mistake("", "limit", "not a regular file: it is not read", "put a file or a link to one there")
		return nil
	}
	if r.files++; r.files > maxFiles {
		r.group("files", Problem{Severity: Mistake, Why: "limit", What: fmt.Sprintf("more than %d files: it is not read", maxFiles), Remedy: "load fewer files"})
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	room := min(maxFileBytes, maxTotalBytes-r.total)
	text, err := io.ReadAll(io.LimitReader(f, room+1))
	if err != nil {
		return err
	}
	if int64(len(text)) > room {
		r.mistake("", "limit", fmt.Sprintf("the file is above %d MiB, or all files together above %d MiB: it is not read", maxFileBytes>>20, maxTotalBytes>>20), "split it, or load fewer files")
		return nil
	}
	r.total += int64(len(text))
	r.readFile(path, string(text))
	return nil
}
