/* getaddrinfo for names of a file: lines of `name address`, read at each question. What is not in it is asked as ever.
   MOVING_NAMES names the file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*question)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    question real = (question)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("MOVING_NAMES");
    FILE *names = path != NULL && node != NULL ? fopen(path, "re") : NULL;
    char name[256], address[64];
    int is_there = 0;

    while (!is_there && names != NULL && fscanf(names, "%255s %63s", name, address) == 2)
        is_there = strcmp(name, node) == 0;
    if (names != NULL)
        fclose(names);
    return real(is_there ? address : node, service, hints, found);
}
