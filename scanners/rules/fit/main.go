// Command fit chooses the scores of our own rules from labelled mail, and says
// how the rules do on mail that it didn't choose from.
//
//	go run ./scanners/rules/fit [-data DIR] [-hits] [-missed] [-write] [-held-out]
//
// It takes the development mail from -data, $SLUICE_DATA or ../shared/data and
// parts it by month: some months of each set are held out, and mail of the
// others that shares a sender or a thread with one held out is left away. The scores of signs of spam stay between 0 and 4, near the ones that
// stand beside the rules as far as there is little mail to judge by; -write puts
// them into builtin/90-scores.cf. Figures of the held-out part are printed with
// -held-out only: they are to be reported, not tuned on.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"

	"sluice/internal/verdict"
	"sluice/scanners/rules"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("fit: ")
	data := flag.String("data", "", "folder with spam-dev.tar.xz, or what was unpacked of it")
	showHits := flag.Bool("hits", false, "what each rule hits in the part that is fitted on")
	missed := flag.Bool("missed", false, "spam of that part below the mark, ham above it")
	write := flag.Bool("write", false, "write the fitted scores into scanners/rules/builtin/90-scores.cf")
	heldOut := flag.Bool("held-out", false, "print the figures of the held-out part too")
	flag.Parse()
	if err := run(*data, *showHits, *missed, *write, *heldOut); err != nil {
		log.Fatal(err)
	}
}

func run(data string, showHits, missed, write, heldOut bool) error {
	set, problems, err := rules.Load(nil, rules.Options{Builtin: true})
	if err != nil {
		return err
	}
	for _, p := range problems {
		return fmt.Errorf("the built-in set: %s", p)
	}
	mails, err := gather(context.Background(), data, rules.New(set, 0))
	if err != nil {
		return err
	}
	train, test, left := part(mails)
	fmt.Printf("fitted on %d mails, %d held out, %d left away (sender or thread of a held-out one)\n\n", len(train), len(test), left)
	scores := make(map[string]float64)
	for _, i := range set.Rules() {
		if !i.Silent && i.Score.Float() < 100 {
			scores[i.Name] = i.Score.Float()
		}
	}
	if showHits {
		printHits(train, scores)
	}
	fmt.Println("scores as they are:")
	figures("fitted part", train, scores)
	if heldOut {
		figures("held out", test, scores)
	}
	if missed {
		printMissed(train, scores)
	}
	if !write {
		return nil
	}
	fitted := regress(train, scores)
	fmt.Println("\nscores fitted:")
	figures("fitted part", train, fitted)
	return save("scanners/rules/builtin/90-scores.cf", fitted, scores)
}

// figures prints what the scores make of mails at the mark of 5.
func figures(title string, mails []*letter, scores map[string]float64) {
	type count struct{ ham, falseMarks, spam, marks int }
	by := map[string]*count{}
	for _, m := range mails {
		for _, set := range []string{"all", m.set} {
			if by[set] == nil {
				by[set] = &count{}
			}
			c, marked := by[set], m.score(scores) >= 5
			switch {
			case m.spam && marked:
				c.spam, c.marks = c.spam+1, c.marks+1
			case m.spam:
				c.spam++
			case marked:
				c.ham, c.falseMarks = c.ham+1, c.falseMarks+1
			default:
				c.ham++
			}
		}
	}
	for _, set := range slices.Sorted(maps.Keys(by)) {
		c := by[set]
		fmt.Printf("  %-12s %-9s ham %4d, falsely marked %d (%s); spam %3d, marked %d (recall %s); precision %s\n", title, set,
			c.ham, c.falseMarks, percent(c.falseMarks, c.ham), c.spam, c.marks, percent(c.marks, c.spam), percent(c.marks, c.marks+c.falseMarks))
	}
}

func percent(a, b int) string {
	if b == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f %%", 100*float64(a)/float64(b))
}

func printHits(mails []*letter, scores map[string]float64) {
	type row struct{ ham, spam map[string]int }
	rows := map[string]*row{}
	for name := range scores {
		rows[name] = &row{map[string]int{}, map[string]int{}}
	}
	for _, m := range mails {
		for _, h := range m.hits {
			if r := rows[h]; r != nil && m.spam {
				r.spam[m.set]++
			} else if r != nil {
				r.ham[m.set]++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		r := rows[name]
		fmt.Printf("%-32s %6.2f  ham a %4d b %3d r %3d   spam a %4d b %3d h %d\n", name, scores[name],
			r.ham["a"], r.ham["b"], r.ham["reports"], r.spam["a"], r.spam["b"], r.spam["handmade"])
	}
	fmt.Println()
}

func printMissed(mails []*letter, scores map[string]float64) {
	for _, m := range mails {
		if s := m.score(scores); m.spam != (s >= 5) || !m.spam && s >= 3.5 {
			fmt.Printf("%s spam=%v %.1f %s\n", m.path, m.spam, s, strings.Join(m.hits, " "))
		}
	}
}

// save writes the scores that differ from those that stand beside the rules.
func save(path string, fitted, before map[string]float64) error {
	var b strings.Builder
	b.WriteString("# Scores fitted by go run ./scanners/rules/fit -write on the part of the\n# development mail that isn't held out. Rules it hardly met keep the score that\n# stands beside them.\n\n")
	for _, name := range slices.Sorted(maps.Keys(fitted)) {
		s := verdict.Points(fitted[name])
		fmt.Fprintf(&b, "score %-32s %s\n", name, s.Fixed(1))
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
