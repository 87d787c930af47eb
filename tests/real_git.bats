#!/usr/bin/env bats
# git: the same generated repository is imported, changed, packed and checked on hakmem and on the C library.
# shellcheck disable=SC2154  # root, build, hakrun, limit and long are set there
load support/real

export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org \
    GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org GIT_AUTHOR_DATE='1000000000 +0000' \
    GIT_COMMITTER_DATE='1000000000 +0000' GIT_TERMINAL_PROMPT=0

script() {
    awk -v commits=$((150 * long)) 'BEGIN {
        for (c = 1; c <= commits; c++) {
            printf "commit refs/heads/main\ncommitter a <a@example.org> %d +0000\ndata 9\nchange %02d\n", 1000000000 + c, c % 100
            for (f = 0; f < 8; f++) {
                text = ""
                for (l = 0; l < 40 + (c * f) % 60; l++)
                    text = text "line " l " of file " (c * f) % 50 " in " (l % 7 == c % 7 ? c : "all") "\n"
                printf "M 100644 inline dir%d/file%d\ndata %d\n%s\n", f % 3, (c * 5 + f) % 120, length(text), text
            }
            print ""
        }
    }' >import
    cat >work.sh <<'SH'
set -e
git init -q -b main repo
cd repo
git fast-import --quiet <../../import
git checkout -q main
git checkout -q -b side HEAD~20
for i in 1 2 3; do
    head -c $((200000 * i)) ../../import >"big$i"
    git add "big$i"
    git commit -q -m "big $i"
done
git merge -q --no-edit main
git fsck --full --strict
git gc -q --aggressive
git fsck --full
git verify-pack .git/objects/pack/*.idx
git repack -a -d -f -q --threads=2 --window=20
git fsck --full
git rev-parse HEAD
git log --stat --format='%H %s' | cksum
git blame -s dir0/file0 | cksum
git grep -c 'file 12 in' HEAD | cksum
git diff main~50 main | cksum
git cat-file --batch-all-objects --batch-check | cksum
git archive HEAD | cksum
git clone -q --no-local . ../copy
git -C ../copy rev-parse HEAD
git -c alias.maps='!grep -c /libhakmem /proc/$PPID/maps >../maps || true' maps
SH
}

compare() {
    script
    on_both sh ../work.sh
    [ "$(cat libc/maps)" = 0 ]
    [ "$(cat hakmem/maps)" -gt 0 ]
    served git 100000000
}

@test "git imports, merges, packs and checks a repository to the same result on hakmem" {
    compare
}

@test "git imports, merges, packs and checks a repository to the same result on the checked library" {
    HAKRUN_FLAGS=--checked compare
}
