#!/usr/bin/env bash
# Writes the manual pages: tools/man.sh DIRECTORY
# hakmem.3 is the comments of include/hakmem.h, hakmem.7 the table src/base/options.def: nothing is written twice.
set -eu
mkdir -p "${1:?usage: tools/man.sh DIRECTORY}"
out=$(readlink -f -- "$1")
cd "$(dirname -- "$(readlink -f -- "$0")")/.."

version=$(awk '/define HAKMEM_VERSION_M|define HAKMEM_VERSION_P/ { v = v s $3; s = "." } END { print v }' include/hakmem.h)

# $1 NAME, $2 section, $3 the file that it is made from, whose date is the page's
title() {
    printf '.\\" Made by tools/man.sh from %s.\n' "$3"
    printf '.TH %s %s %s "hakmem %s" "%s"\n' "$1" "$2" "$(date -u -r "$3" +%F)" "$version" hakmem
}

# Text to man(7): awk functions that both pages use.
# shellcheck disable=SC2016  # awk's
functions='
    # What is program text: no hyphens, no escapes.
    function code(s) { gsub(/\\/, "\\e", s); gsub(/-/, "\\-", s); return s }

    # Prose: `names`, *words* and hak_calls() stand out.
    function prose(s,   out, word) {
        gsub(/\\/, "\\e", s)
        while (match(s, /`[^`]*`|\*[a-z]+\*|hak_[a-z_]+\(\)|HAKMEM_[A-Z0-9_]+(=[A-Za-z0-9]+)?/)) {
            word = substr(s, RSTART, RLENGTH)
            out = out substr(s, 1, RSTART - 1)
            if (word ~ /^[`*]/) out = out "\\fI" code(substr(word, 2, length(word) - 2)) "\\fP"
            else if (word ~ /\(\)$/) out = out "\\fB" substr(word, 1, length(word) - 2) "\\fP()"
            else out = out "\\fB" word "\\fP"
            s = substr(s, RSTART + RLENGTH)
        }
        return out s
    }

    # One output line per input line; one that would be a request is not.
    function put(s) { if (s ~ /^[.\x27]/) s = "\\&" s; print s }
'

page_3() {
    title HAKMEM 3 include/hakmem.h
    awk "$functions"'
        # A declaration without what only the compiler needs.
        function declaration(s) {
            gsub(/HAK_PUBLIC |HAK_NOEXCEPT/, "", s)
            sub(/ *HAK_ATTR\(.*\);/, ";", s)
            gsub(/[ \n]+/, " ", s)
            sub(/ ;/, ";", s)
            return s
        }

        function name_of(s) {
            match(s, /hak_[a-z0-9_]+\(/)
            return substr(s, RSTART, RLENGTH - 1)
        }

        # The comment above a declaration, or the one at the head: paragraphs, and lists of " - ".
        function text(s,   lines, n, i) {
            n = split(s, lines, "\n")
            for (i = 1; i <= n; i++) {
                if (lines[i] ~ /^ *$/) { if (i > 1 && i < n) print ".PP" }
                else if (lines[i] ~ /^ *- /) { print ".IP \\(bu 2"; sub(/^ *- /, "", lines[i]); put(prose(lines[i])) }
                else { sub(/^ */, "", lines[i]); put(prose(lines[i])) }
            }
        }

        function verbatim(s,   lines, n, i) {
            print ".EX"
            n = split(s, lines, "\n")
            for (i = 1; i <= n; i++) if (lines[i] != "") put(code(lines[i]))
            print ".EE"
        }

        function finish() {
            count++
            docs[count] = comment; decls[count] = decl; heads[count] = head
            comment = decl = head = ""
        }

        # Comments: the bare text of each is kept until a declaration takes it.
        !decl && /^\/\*/ { comment = ""; inside = 1 }
        inside {
            line = $0
            inside = line !~ /\*\//
            sub(/^ *\/\* ?/, "", line); sub(/ *\*\/.*/, "", line); sub(/^ \* ?/, "", line)
            if (line ~ /^---- /) { gsub(/^-+ | -+$/, "", line); head = line; comment = ""; next }
            comment = comment (comment == "" ? "" : "\n") line
            next
        }
        /^#ifndef HAKMEM_H/ { general = comment; comment = "" }
        /^#/ || /^extern "C"/ || /^}$/ { continued = /\\$/; if (comment != "" && /^#define/) comment = ""; next }
        # Empty lines, and structures that are only named.
        /^$/ || (!decl && /^struct [a-z0-9_]+;$/) { next }
        {
            decl = decl (decl == "" ? "" : "\n") $0
            open = gsub(/{/, "{", decl) - gsub(/}/, "}", decl)
            if (open == 0 && decl ~ /;[^\n]*$/) finish()
        }
        END {
            names = ""
            for (i = 1; i <= count; i++)
                if (decls[i] ~ /\(/ && decls[i] !~ /^(struct|enum) [a-z_]+ {/) names = names ", " name_of(decls[i])
            print ".SH NAME"
            put("hakmem" names " \\- a general\\-purpose malloc for Linux")
            print ".SH SYNOPSIS\n.nf\n.B #include <hakmem.h>\n.PP"
            for (i = 1; i <= count; i++) {
                if (decls[i] ~ /^(struct|enum) [a-z_]+ {/) continue
                if (i > 1 && heads[i] != "") print ".PP"
                put("\\fB" code(declaration(decls[i])) "\\fP")
            }
            print ".PP\nLink with \\fI\\-lhakmem\\fP, or preload libhakmem.so.\n.fi\n.SH DESCRIPTION"
            sub(/^[^\n]*\n\n?/, "", general)
            text(general)
            for (i = 1; i <= count; i++) {
                if (decls[i] ~ /^(struct|enum) [a-z_]+ {/) {
                    match(decls[i], /^(struct|enum) [a-z_]+/)
                    print ".SS " substr(decls[i], RSTART, RLENGTH)
                    if (docs[i] != "") { text(docs[i]); print ".PP" }
                    verbatim(decls[i])
                } else {
                    print ".SS " name_of(decls[i])
                    put("\\fB" code(declaration(decls[i])) "\\fP")
                    print ".PP"
                    # One comment may stand above several declarations.
                    text(docs[i] != "" ? docs[i] : "See the entry above.")
                }
            }
            print ".SH SEE ALSO\n.BR malloc (3),\n.BR hakmem (7)"
        }' include/hakmem.h
}

page_7() {
    title HAKMEM 7 src/base/options.def
    cat <<'MAN'
.SH NAME
hakmem \- options of the hakmem memory allocator
.SH DESCRIPTION
A program that runs on hakmem takes these options from its environment, once, at start.
A name that is unknown and a value that cannot be used give a warning that says what is used instead.
All of them are ignored in set\-user\-ID programs.
.PP
Yes and no are written 1 and 0.
A number is decimal, or hexadecimal after 0x, and may end in K, M or G for powers of 1,024; one out of range is
brought into it.
.SH OPTIONS
MAN
    # An option between #if and #endif is not in the installed libraries.
    awk "$functions"'
        /^#if/ { elsewhere = 1 }
        /^#endif/ { elsewhere = 0 }
        /^HAK_OPTION\(/ && !elsewhere {
            n = split($0, quoted, "\"")
            unit = quoted[2]; meaning = quoted[4]
            sub(/^HAK_OPTION\(/, "", quoted[1])
            split(quoted[1], field, /, */)
            print ".TP"
            value = field[2] == "BOOL" ? "0|1" : unit
            put("\\fBHAKMEM_" field[1] "\\fP=\\fI" code(value) "\\fP")
            put(prose(toupper(substr(meaning, 1, 1)) substr(meaning, 2)) ".")
            if (field[2] == "BOOL") put("Default: " field[3] ".")
            else if (field[2] != "TEXT") put("Default: " field[3] "; from " field[4] " to " field[5] ".")
        }' src/base/options.def
    cat <<'MAN'
.SH SEE ALSO
.BR hakmem (3),
.BR ld.so (8)
MAN
}

page_3 >"$out/hakmem.3"
page_7 >"$out/hakmem.7"
